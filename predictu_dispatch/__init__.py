"""Predictu dispatch: callbacks leave Postgres, signed, and come back settled. Start reading at DESIGN.md beside this."""
