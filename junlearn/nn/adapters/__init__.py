"""Low-rank adapters of any dense layers, and their published files."""
