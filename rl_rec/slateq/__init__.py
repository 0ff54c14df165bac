"""SlateQ (Ie et al., IJCAI 2019, arXiv 1905.12767)."""
