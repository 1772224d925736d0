"""Manual actions, recorded with name and time; the database decides what is allowed."""
