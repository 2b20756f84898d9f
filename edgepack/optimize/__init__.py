"""Passes from flatbuffer to flatbuffer, and the choice among their results."""
