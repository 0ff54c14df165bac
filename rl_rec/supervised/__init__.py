"""Supervised learning of responses: to what is shown (online), or to what the logs hold (offline)."""
