"""Falsifiable claims of the published systems, one module a system.

python -m experiments.claims [SYSTEM ...] --workdir=DIR
"""
