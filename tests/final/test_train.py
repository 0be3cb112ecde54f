from recsys.config.schema import Config
from recsys.final.train import train_for_validation
from recsys.training.fit import fit
from tests.training.small_data import two_tastes


def test_a_sample_chooses_the_epoch_and_all_users_are_scored() -> None:
    training = {"learning_rate": 0.05, "max_epochs": 4}
    sampled, whole = (
        Config.model_validate({"training": training, "evaluation": {"max_users": limit}})
        for limit in (10, None)
    )
    on_sample = [epoch.metrics["val_ndcg_at_10"] for epoch in fit(sampled, two_tastes(), 0)]
    on_all = [epoch.metrics["val_ndcg_at_10"] for epoch in fit(whole, two_tastes(), 0)]
    trained = train_for_validation(sampled, two_tastes(), 0, None)
    assert trained.n_epochs == 1 + on_sample.index(max(on_sample))
    assert trained.metrics["ndcg_at_10"] == on_all[trained.n_epochs - 1] != max(on_sample)


def test_the_best_ranked_epoch_is_returned() -> None:
    training = {"learning_rate": 0.05, "max_epochs": 5}
    config = Config.model_validate({"training": training, "evaluation": {"every": 2}})
    values = {
        epoch.epoch: epoch.metrics["val_ndcg_at_10"]
        for epoch in fit(config, two_tastes(), 0)
        if epoch.epoch in (2, 4, 5)
    }
    trained = train_for_validation(config, two_tastes(), 0, None)
    assert trained.metrics["ndcg_at_10"] == max(values.values()) == values[trained.n_epochs]
