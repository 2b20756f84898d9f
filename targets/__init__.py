"""Built-in target profiles: one TOML file a kind of device; the file name is the id."""
