"""Hierarchical Semantic RL (Wang et al., arXiv 2510.09167)."""
