"""Hyper-Actor Critic (Liu et al., WWW 2023, arXiv 2302.03431)."""
