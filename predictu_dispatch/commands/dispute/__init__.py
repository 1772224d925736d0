"""`dispute`: everything about one bet in one file, with proofs."""
