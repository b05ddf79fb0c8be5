"""Random forgeries of a certified run, and which of them are found."""
