"""`audit`: verifies, proves and exports the logs that seal the audit."""
