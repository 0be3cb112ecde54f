"""MLflow: runs of studies, trials and final trainings."""

import logging
import os

# MLflow reads these when it is imported, which happens in the modules of this folder alone.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# MLflow's own limits are 120 s and seven retries, which a server that hangs turns into a quarter of an hour a request.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)
# It warns of each retry of a request; what comes of the request is told by who made it.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
# It logs a traceback of each fault of a database beside the error that it raises.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
