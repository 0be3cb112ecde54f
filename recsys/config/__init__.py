"""Configuration: the typed settings of a run, and the YAML files and flags that set them."""
