"""Postgres: the pool, the statements, and rows translated into records."""
