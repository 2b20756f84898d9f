"""The order of the stages: which room's result goes into which, with progress told by callback."""
