"""A2C over items (Mnih et al., ICML 2016, arXiv 1602.01783), on replayed slates."""
