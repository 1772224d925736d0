"""A private Postgres server from a folder of binaries, for the demo and the tests.

Only the standard library is used, so that any Python can run it.
"""
