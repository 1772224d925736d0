"""The configuration on disk: files, keys and certificates."""
