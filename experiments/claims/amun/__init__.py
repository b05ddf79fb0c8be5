"""Claims of AMUN."""
