"""Logs to one columnar schema: loaders, the synthetic world, and the dataset they all become."""
