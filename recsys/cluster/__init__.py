"""The Ray cluster: connection, resources, autoscaler, and paths that all nodes see."""

import recsys.config.environment  # noqa: F401 (before any import of ray)
