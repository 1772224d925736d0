"""What decides: pure code without await, clock, randomness or logging, so that every decision can be tested as a table."""
