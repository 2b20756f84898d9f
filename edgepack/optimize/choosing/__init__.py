"""Variants made, searched for and chosen."""
