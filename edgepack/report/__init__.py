"""Render finished measurements; nothing here measures or decides."""
