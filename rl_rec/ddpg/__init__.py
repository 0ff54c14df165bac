"""DDPG on hyper-actions (Lillicrap et al., ICLR 2016, arXiv 1509.02971)."""
