"""Channels that share a tensor's 8 bits, brought to like ranges."""
