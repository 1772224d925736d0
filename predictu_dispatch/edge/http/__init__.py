"""HTTP: the connection to an operator, and the daemon's own server."""
