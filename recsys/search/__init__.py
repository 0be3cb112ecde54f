"""The hyperparameter search: space, searcher, scheduler, trials and study."""
