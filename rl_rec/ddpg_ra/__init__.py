"""DDPG with learned action representations (Chandak et al., ICML 2019, arXiv 1902.00183)."""
