"""Certified deletion among clients that train without a server."""
