"""`certify`: plays the certification against an operator's sandbox."""
