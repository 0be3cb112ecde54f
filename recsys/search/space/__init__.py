"""Search spaces: config paths with domains, read from YAML."""
