from recsys.config.schema import Config, replace_values
from recsys.search.plan import _keep_choices


def test_a_resumed_study_keeps_what_auto_was() -> None:
    choices = {"evaluation.max_users": None, "evaluation.every": 2, "training.patience": None}
    stored = replace_values(Config(), choices)
    assert _keep_choices(Config(), stored) == stored
    asked = replace_values(Config(), {"evaluation.max_users": 7, "training.patience": 3})
    assert _keep_choices(asked, stored) == replace_values(asked, {"evaluation.every": 2})
