"""MLflow: runs of studies, trials and final trainings."""

import logging

import recsys.config.environment  # noqa: F401 (before any import of mlflow)

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)
# It warns of each retry of a request; the caller reports how the request ended.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
# It logs a traceback of each fault of a database, and raises the error as well.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
