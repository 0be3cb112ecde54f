"""Search spaces: domains by config path, and the YAML files that hold them."""
