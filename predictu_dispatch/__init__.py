"""Predictu dispatch: callbacks leave Postgres, signed, and come back settled; see DESIGN.md."""
