"""Self-contained programs sent to devices; they import nothing of this package."""
