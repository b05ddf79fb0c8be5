"""Nets of images."""
