"""Throughput of each part on worlds of random tensors: no files, and no Ray unless it is asked for."""
