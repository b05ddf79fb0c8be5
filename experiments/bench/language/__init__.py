"""Decoders of text: training, decoding and adapters."""
