"""A private Postgres server from a folder of binaries, with the standard library only."""
