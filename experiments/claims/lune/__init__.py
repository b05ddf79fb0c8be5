"""Claims of LUNE."""
