"""Float models of fewer ops that answer the same."""
