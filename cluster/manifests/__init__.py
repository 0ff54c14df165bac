"""The files that make a cluster, rendered from one typed description and checked before they are written."""
