"""Command lines as jobs of a Ray cluster: what travels, how it is submitted, followed and stopped."""
