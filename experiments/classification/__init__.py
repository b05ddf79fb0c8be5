"""Deleting training records from an image classifier."""
