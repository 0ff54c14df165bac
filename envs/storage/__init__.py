"""Folders that lie somewhere else: on an object store, or behind any URL that Arrow or fsspec understands.

Everything else in this project works on local folders. A URL is read through a snapshot in this node's cache
(``snapshots.fetch``), and written through a working copy that is held, pulled and pushed
(``working_copy.working_copy``). A local path passes through both untouched. Only ``location`` is free of Arrow.
"""
