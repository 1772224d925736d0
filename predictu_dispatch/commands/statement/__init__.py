"""`statement`: an operator's confirmed movements by accounting day, and its unknown outcomes."""
