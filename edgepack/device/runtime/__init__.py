"""The inference runtimes that a device is given, and what they can load."""
