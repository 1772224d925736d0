"""What decides: pure code without await, clock, randomness or logging, so that every decision is tested as a table."""
