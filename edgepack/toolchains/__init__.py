"""Isolated, locked environments for the heavy frameworks, and workers run in them."""
