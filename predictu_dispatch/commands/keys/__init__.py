"""`keys`: creates, prints and rotates the keys that sign an operator's tokens."""
