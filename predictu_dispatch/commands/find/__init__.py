"""`find`: bets and callbacks by player, bet, transaction, request id, amount and time."""
