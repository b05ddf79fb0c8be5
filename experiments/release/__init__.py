"""Certified releases of a run: their account, ledger and records."""
