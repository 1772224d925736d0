"""The statement, and the reconciliation of our records with an operator's ledger."""
