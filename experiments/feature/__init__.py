"""Forgetting a feature at one of several clients."""
