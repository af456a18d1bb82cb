"""Compiled kernels, one face in Python for each of their subjects; numpy does the same work without them."""
