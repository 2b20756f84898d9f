"""Scripts run inside toolchains, by path; they import nothing of EdgePack but one another."""
