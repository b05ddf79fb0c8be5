"""Decoders of text, and the folders that published checkpoints come in."""
