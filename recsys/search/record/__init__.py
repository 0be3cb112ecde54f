"""The record of a study: the Optuna study that stores what happened, and the files around it."""
