"""A model walked layer by layer: inputs and outputs of each, and what an error there does."""
