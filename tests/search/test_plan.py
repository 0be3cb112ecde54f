from recsys.config.schema import Config, replace_values
from recsys.search.plan import _keep_ranking


def test_a_resumed_study_keeps_what_auto_was() -> None:
    stored = replace_values(Config(), {"evaluation.max_users": None, "evaluation.every": 2})
    assert _keep_ranking(Config(), stored).evaluation == stored.evaluation
    asked = replace_values(Config(), {"evaluation.max_users": 7})
    kept = _keep_ranking(asked, stored).evaluation
    assert (kept.max_users, kept.every) == (7, 2)
