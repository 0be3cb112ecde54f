"""MLflow: runs of studies, trials and final trainings."""
