"""TD3 on hyper-actions (Fujimoto et al., ICML 2018, arXiv 1802.09477)."""
