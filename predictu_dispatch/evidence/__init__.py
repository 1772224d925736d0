"""The evidence: verification, proofs, exports and bundles. No daemon imports it."""
