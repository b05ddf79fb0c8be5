"""Claims of Ferrari."""
