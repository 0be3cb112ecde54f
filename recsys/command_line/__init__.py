"""Common code of the commands: options, the config that they set, errors and results."""
