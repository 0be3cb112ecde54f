"""The Ray cluster: connecting to it, its resources, its autoscaler, and the paths that all nodes share."""

import recsys.config.environment  # noqa: F401 (before any import of ray)
