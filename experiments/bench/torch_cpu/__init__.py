"""junlearn against plain eager PyTorch on the CPU, doing the same work."""
