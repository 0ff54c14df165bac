"""Item-wise A2C (Wang et al., KDD 2024, arXiv 2401.16108)."""
