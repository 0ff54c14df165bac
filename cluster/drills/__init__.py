"""Drills: each fault that a cluster brings, brought about on a local throw-away cluster."""
