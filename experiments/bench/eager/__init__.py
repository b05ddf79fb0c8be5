"""The same work as junlearn's in plain eager PyTorch, written to be fast.

Needs the package's extra `oracles`.
"""
