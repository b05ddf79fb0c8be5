"""Claims of the worked example."""
