"""`reconcile`: compares our records with an operator's ledger, and follows up the differences."""
