"""Many devices at once: which they are, in which order, how often each is tried, what came."""
