"""Predictu dispatch: callbacks leave Postgres, signed, and come back settled.

Start at DESIGN.md beside this.
"""
