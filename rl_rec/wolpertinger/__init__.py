"""Wolpertinger (Dulac-Arnold et al., 2015, arXiv 1512.07679)."""
