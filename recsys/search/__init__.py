"""The hyperparameter search: one run of the tune command.

In the order of the flow:
    choose_space   the search space of the run
    plan           the checks before the search
    session        the run: create or resume the study, run its trials, write the results
    study_log      the study's run in MLflow
    texts          the printed plan and result

The trials run in `tuning`, what happens is stored in `record`, and search spaces are in `space`.
"""
