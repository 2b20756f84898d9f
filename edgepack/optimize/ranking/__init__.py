"""Which layers cost how much at which precision."""
