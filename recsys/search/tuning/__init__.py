"""The trials of a study under Ray Tune."""

import recsys.config.environment  # noqa: F401 (before any import of ray)
