"""How a variant fares beside the float model: figures, floors, and silent collapse."""
