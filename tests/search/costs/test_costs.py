"""Counts of an epoch's work, by hand, and what reports teach about its time."""

import math

import optuna
import pytest

from recsys.config.schema import Config, replace_values
from recsys.data.manifest import Manifest
from recsys.search.costs import work
from recsys.search.costs.predict import Costs, expected_ratio
from recsys.search.costs.work import expected_seconds
from recsys.search.record.study_record import StudyRecord
from recsys.search.space.space_file import parse_space

DATA = Manifest.model_construct(n_users=20, n_items=600, n_train=100, n_low=10, n_validation=15)
SPACE = parse_space({"parameters": {"model.embedding_dim": {"low": 8, "high": 64}}}, "")


def config_of(**values: object) -> Config:
    return replace_values(
        Config(), {path.replace("__", "."): value for path, value in values.items()}
    )


NEUMF = config_of(training__batch_size=32, model__embedding_dim=8)
PRODUCT = config_of(model__name="inner_product", training__loss="bpr", training__batch_size=32)
SOFTMAX = config_of(
    model__name="gmf",
    training__loss="softmax",
    training__negative_sampling="all",
    training__batch_size=50,
    model__embedding_dim=8,
)
AUTOENCODER = replace_values(
    SOFTMAX,
    {
        "model.name": "autoencoder",
        "model.n_layers": 1,
        "model.hidden_dim": 12,
        "evaluation.max_users": 5,
        "model.embedding_dim": 4,
    },
)
AUTOENCODER_DENSE = 12 + 12 * 4 + 4 + 4 * 12 + 12
GAUSSIAN = replace_values(AUTOENCODER, {"model.n_layers": 0, "model.bottleneck": "gaussian"})
DIFFUSION = replace_values(GAUSSIAN, {"model.name": "diffusion", "model.noise_steps": 3})
RQVAE = replace_values(SOFTMAX, {"model.name": "rqvae", "model.n_levels": 3})
SAMPLED_RQVAE = replace_values(PRODUCT, {"model.name": "rqvae", "model.embedding_dim": 8})
SQUARES = config_of(model__name="inner_product", training__loss="squared", model__embedding_dim=100)
RECENT = replace_values(SQUARES, {"training.recency_half_life": 5.0})
X = 50 / 5.5
SAMPLED = config_of(evaluation__protocol="sampled", evaluation__max_users=5, model__bias=False)


@pytest.mark.parametrize(
    ("unit", "config", "count"),
    [
        # 100 positives with 4 negatives, and for bce the 10 low ratings; batches of 32 positives.
        ("sample", NEUMF, 510),
        ("sample", PRODUCT, 500),
        ("batch", NEUMF, 4),
        # Three layers of widths 16, 8 and 4: 2 * 8 * 16 + 16 * 8 + 8 * 4 products, 28 biases, 8 and
        # 4 weights of the output, and the global bias. 2 + 2 + 3 + 2 + 1 tensors.
        ("hidden value of a sample", NEUMF, 510 * math.sqrt(256 + 128 + 32 + 28 + 8 + 4 + 1)),
        ("dropped value of a sample", NEUMF, 0),
        ("parameter of a batch", NEUMF, 4 * 10),
        # 20 users and 600 items, each with two embeddings of 8 and a bias.
        ("value of Adam on all rows", NEUMF, 4 * 620 * 17),
        ("value of Adam on a batch's rows", NEUMF, 0),
        # Every user against every item; two batches of 50 positives.
        ("product of a score", SOFTMAX, 20 * 600 * 8),
        ("batch", SOFTMAX, 2),
        ("item that a batch chooses from", SOFTMAX, 0),
        # A row of 12 for each positive; dense layers from 12 to 4 and back, with 12 biases before.
        ("product of a score", AUTOENCODER, 20 * 600 * 12 + 100 * 12 + 20 * AUTOENCODER_DENSE),
        # A mean and a variance of 4 each are read of a positive, and 4 values score.
        ("product of a score", GAUSSIAN, 20 * 600 * 4 + 100 * 8 + 20 * 8),
        # The bottleneck stays plain. 4 values of the noise and, at two steps, 8 of denoising; the
        # bias of the first layer and the vector of the steps.
        ("product of a score", DIFFUSION, 20 * 600 * (4 + 4 + 16) + 100 * 4 + 20 * 8),
        # Of each of 600 items in two batches the distances to 3 * 64 entries, and two dense layers.
        ("product of a score", RQVAE, 20 * 600 * 8 + 2 * 600 * (3 * 64 * 8 + 2 * 8 * 8)),
        ("product of a ranked pair", RQVAE, 15 * (256 + 180) * (8 + 1)),
        # 4 batches with 125 samples each, and 4 levels.
        ("product of a score", SAMPLED_RQVAE, 500 * (4 * 64 * 8 + 2 * 8 * 8)),
        # 5 of 15 users, each with the head, 30% of all 600 items, and the dense layers.
        (
            "product of a ranked pair",
            AUTOENCODER,
            5 * (256 + 180) * (12 + 1) + 5 * AUTOENCODER_DENSE,
        ),
        # Rows of at most 50 interactions are short: all items, whose mean is .18, and all users but
        # exp(-X), whose mean is 5.5 and who have (1 + X) exp(-X) of the interactions.
        ("interaction of an equation", SQUARES, 2 * 110),
        ("product of an equation", SQUARES, 110 * (1 + X) * math.exp(-X) * 100 * 64),
        ("product of a solution", SQUARES, 20 * math.exp(-X) * 100 * 64 * 64),
        ("value of a short row's interaction", SQUARES, 110 * (2 - (1 + X) * math.exp(-X)) * 100),
        ("product of a rotation", SQUARES, 620 * 100 * 100),
        # The users once more.
        ("interaction of an equation", RECENT, 3 * 110),
        ("product of an equation", RECENT, 2 * 110 * (1 + X) * math.exp(-X) * 100 * 64),
        (
            "value of a short row's interaction",
            RECENT,
            110 * (3 - 2 * (1 + X) * math.exp(-X)) * 100,
        ),
        ("product of a rotation", RECENT, 640 * 100 * 100),
        # 15 users, each with the 256 most popular items and 30% of all 600.
        ("ranked pair", PRODUCT, 15 * (256 + 180)),
        # A third of the users, each with 99 candidates and the held-out item.
        ("ranked pair", SAMPLED, 5 * 100),
        ("product of a ranked pair", SAMPLED, 5 * 100 * (2 * 16 + 1024 + 512 + 128 + 56 + 16 + 8)),
    ],
)
def test_counts(unit: str, config: Config, count: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_UNIT_SECONDS", {key: key == unit for key in work._UNIT_SECONDS})
    seconds = expected_seconds(config, DATA)
    assert seconds.train + seconds.rank == pytest.approx(count)


def test_all_users_are_ranked_once_more_where_a_sample_is_ranked() -> None:
    of_sample = expected_seconds(SAMPLED, DATA)  # 5 of 15 users
    assert of_sample.rank_all == pytest.approx(3 * of_sample.rank)
    assert of_sample.of_trial(SAMPLED) == pytest.approx(
        20 * (of_sample.train + of_sample.rank) + 3 * of_sample.rank
    )
    assert expected_seconds(NEUMF, DATA).rank_all == 0
    short = replace_values(SAMPLED, {"training.max_epochs": 1})
    until_first = of_sample.train + of_sample.rank
    assert of_sample.until_report(SAMPLED, 1) == pytest.approx(until_first)
    # Its only report is its last.
    assert of_sample.until_report(short, 1) == pytest.approx(until_first + 3 * of_sample.rank)


def test_wide_embeddings_with_many_rows_are_updated_by_the_rows_of_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = DATA.model_copy(update={"n_items": 10**6})
    units = work._UNIT_SECONDS
    # 33 values of 160 items in each of 4 batches, and of all 20 users.
    for unit, count in (
        ("value of Adam on a batch's rows", 4 * 127.5 * 33),
        ("value of Adam on all rows", 4 * 20 * 33),
    ):
        monkeypatch.setattr(work, "_UNIT_SECONDS", {key: key == unit for key in units})
        assert expected_seconds(config_of(training__batch_size=32), large).train == pytest.approx(
            count
        )


def test_ratios_are_shrunk_means() -> None:
    neumf, gmf = ("neumf", "bce", "uniform"), ("gmf", "bce", "uniform")
    assert expected_ratio([], neumf) == 1
    # One trial that took 3 times as long: 1 / 1.25 of its logarithm counts for all trials, and half
    # of the rest for its own kind.
    assert expected_ratio([(neumf, math.log(3))], gmf) == pytest.approx(3**0.8)
    assert expected_ratio([(neumf, math.log(3))], neumf) == pytest.approx(3**0.9)
    # Of 2, 2 and 16 times: 6 / 3.25 powers of 2; of the rest of the second kind a half.
    trials = [(neumf, math.log(2)), (neumf, math.log(2)), (gmf, math.log(16))]
    assert expected_ratio(trials, gmf) == pytest.approx(2 ** (6 / 3.25 + (4 - 6 / 3.25) / 2))


def test_a_resumed_search_predicts_as_before() -> None:
    study = optuna.create_study(direction="maximize")
    record = StudyRecord(study, NEUMF, SPACE)
    costs = Costs(record, DATA)
    expected = expected_seconds(NEUMF, DATA)
    assert not costs.is_measured
    assert costs.predict(NEUMF) == expected
    number, config = record.ask()
    of_trial = expected_seconds(config, DATA)
    metrics = {"train_seconds": 2 * of_trial.train, "rank_seconds": 4 * of_trial.rank}
    record.report(number, 1, 0.5, metrics)
    record.report(number, 2, 0.4, {"train_seconds": 1e9, "rank_seconds": 1e9})  # not its best
    predicted = costs.predict(NEUMF)
    assert costs.is_measured
    assert predicted.train == pytest.approx(2**0.9 * expected.train)
    assert predicted.rank == pytest.approx(4**0.9 * expected.rank)
    resumed = StudyRecord(study, NEUMF, SPACE)
    resumed.resume()
    assert Costs(resumed, DATA).predict(NEUMF) == predicted
