"""A Postgres of our own from a folder of binaries, for the demo and the tests."""
