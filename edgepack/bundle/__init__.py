"""The .edgepack file: manifest, deterministic writing, verification, opening."""
