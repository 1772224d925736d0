"""`ping`: PINGs through the outbox, a daemon and the wire, with the cause of each failure."""
