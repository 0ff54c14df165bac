"""Semantic IDs (SIDs): items as short sequences of tokens, by residual k-means over their vectors."""
