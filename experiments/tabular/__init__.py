"""Deleting records of a table: the smallest modality, to be read first."""
