"""Decisions: pure code without await, clock, randomness or logging."""
