"""The `rl-rec` command line: the library computes, this package prints."""
