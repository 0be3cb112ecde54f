"""Whole users held out: the split by hand, what is read of it, and that nothing else changes."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.config.schema import Config, replace_values
from recsys.data.interactions import Interactions
from recsys.data.preprocessing import pipeline
from recsys.data.preprocessing.split_strategies import given_positives, pair_hash, users_split
from recsys.data.processed import Processed, all_pairs, load
from recsys.data.resolve import resolve_trained
from recsys.data.splits import HELD_OUT_SPLITS, TEST, TRAIN, VALIDATION
from recsys.errors import InputError
from recsys.evaluation.baselines import score_baselines
from recsys.training.fit import fit
from tests.data.conftest import Prepare

FRACTIONS = {"data.split": "users", "data.test_fraction": 0.3, "data.validation_fraction": 0.4}
N_USERS, N_ITEMS, SEED = 40, 30, 7
Row = tuple[int, int, int, int]
"""User, item, rating and time."""


def split_of(user: int, seed: int = SEED) -> int:
    """Return the split of a user with enough positives, from the hashes of the user alone."""
    ids, none = np.array([user]), np.array([0])
    if pair_hash(ids, none, seed, 0)[0] < 0.3:
        return TEST
    return VALIDATION if pair_hash(ids, none, seed, 1)[0] < 0.4 else TRAIN


def rows_of(seed: int = 0) -> list[Row]:
    """Return 4 to 16 ratings of each user. All users and items occur."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(N_USERS):
        n = int(random.integers(4, 16))
        items = {user % N_ITEMS, *random.choice(N_ITEMS, n, replace=False).tolist()}
        rows += [
            (user, item, int(random.choice([2, 5, 5])), int(random.integers(99))) for item in items
        ]
    return rows


def given_of(rows: list[Row], user: int, seed: int = SEED) -> list[int]:
    """Return the given items of a user in order, by a plain rule."""
    items = [item for one, item, rating, _ in rows if one == user and rating >= 4]
    hashes = {item: pair_hash(np.array([user]), np.array([item]), seed, 2)[0] for item in items}
    n_given = max(1, len(items) * 8 // 10)
    return sorted(sorted(items, key=hashes.__getitem__)[:n_given])


def write(rows: list[Row], path: Path) -> Path:
    lines = (",".join(map(str, row)) for row in rows)
    path.write_text("user_id,item_id,rating,timestamp\n" + "\n".join(lines) + "\n")
    return path


def prepare(prepared: Prepare, path: Path, rows: list[Row], **values: object) -> Processed:
    path.mkdir(exist_ok=True)
    settings = {"data.split_seed": SEED, "evaluation.k": 3, **FRACTIONS, **values}
    return prepared(write(rows, path / "data.csv"), settings)


def positives_by_user(rows: list[Row]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {user: [] for user in range(N_USERS)}
    for user, item, rating, _ in sorted(rows):
        if rating >= 4:
            found[user].append(item)
    return found


def test_the_split_by_hand() -> None:
    # User 9 has one positive, and so only trains.
    user = np.array([1, 1, 1, 2, 2, 2, 2, 2, 2, 9, 9])
    positive = np.array([1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0], dtype=bool)
    for seed in range(20):
        split = users_split(user, positive, seed, 0.3, 0.4)
        expected = [split_of(one, seed) for one in (1, 2)]
        assert split.tolist() == [expected[0]] * 3 + [expected[1]] * 6 + [TRAIN] * 2
    item = np.array([4, 8, 9, 0, 1, 2, 3, 4, 5, 7, 8])
    given = given_positives(user, item, positive, SEED)
    # One of two, four of six, and the only one; no low rating.
    assert [given[rows].sum() for rows in (slice(0, 3), slice(3, 9), slice(9, 11))] == [1, 4, 1]
    assert not given[~positive].any()
    left_out = item[3:9][~given[3:9]]
    hashes = pair_hash(np.full(6, 2), np.arange(6), SEED, 2)
    assert set(left_out) == set(np.argsort(hashes)[4:])


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 9, 10, 11])
def test_the_number_of_given_positives(n: int) -> None:
    user, item = np.zeros(n, dtype=np.int64), np.arange(n)
    expected = {0: 0, 1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 9: 7, 10: 8, 11: 8}[n]
    for seed in range(5):
        given = given_positives(user, item, np.ones(n, dtype=bool), seed)
        assert given.sum() == expected


def test_shares_of_users() -> None:
    user = np.repeat(np.arange(5000), 2)
    split = users_split(user, np.ones(10_000, dtype=bool), 3, 0.2, 0.1)
    assert np.array_equal(split[::2], split[1::2])
    share = np.bincount(split[::2]) / 5000
    # Six standard deviations of a binomial share.
    for found, expected in zip(share, (0.72, 0.08, 0.2), strict=True):
        assert abs(found - expected) < 6 * (expected * (1 - expected) / 5000) ** 0.5


def test_what_is_read(prepared: Prepare, tmp_path: Path) -> None:
    rows = rows_of()
    processed = prepare(prepared, tmp_path / "a", rows)
    liked = positives_by_user(rows)
    split = {u: split_of(u) if len(liked[u]) >= 2 else TRAIN for u in liked}
    of = [{u for u in liked if split[u] == code} for code in range(3)]
    assert all(len(users) >= 5 for users in of)
    assert processed.manifest.n_validation_users == len(of[VALIDATION])
    trained = of[TRAIN]
    for name, code in zip(HELD_OUT_SPLITS, (VALIDATION, TEST), strict=True):
        data = load(processed, name, False)
        assert data.held_out is not None
        assert data.given is not None
        pairs = set(zip(data.user.tolist(), data.item.tolist(), strict=True))
        assert pairs == {(u, item) for u in trained for item in liked[u]}
        given = [(u, item) for u in sorted(of[code]) for item in given_of(rows, u)]
        assert list(zip(data.given.user, data.given.item, strict=True)) == given
        ranked = sorted({(u, item) for u in of[code] for item in liked[u]} - set(given))
        held_out = data.held_out
        assert list(zip(held_out.user, held_out.item, strict=True)) == ranked
        low = {(u, item) for u, item, rating, _ in rows if rating < 4}
        known = pairs | set(given) | {pair for pair in low if pair[0] in trained | of[code]}
        seen = zip(data.seen.users().tolist(), data.seen.items.tolist(), strict=True)
        assert set(seen) == known
        assert {u for u, _ in low if u in of[code]} >= set(data.given.low_user.tolist())
        assert len(held_out.low_user) == 0
        times = {(u, item): time for u, item, _, time in rows}
        assert data.given.n_later is not None
        later = [
            sum(times[other] > times[one] for other in given if other[0] == one[0]) for one in given
        ]
        assert data.given.n_later.tolist() == later
        trained = trained | of[code]
    everything = all_pairs(processed)
    assert len(everything.items) == len(rows)


def test_histories_are_those_of_training_and_given(prepared: Prepare, tmp_path: Path) -> None:
    data = load(prepare(prepared, tmp_path / "a", rows_of()), "validation", True)
    assert data.given is not None
    assert data.n_later is not None
    assert data.given.n_later is not None
    found = data.histories()
    later: dict[tuple[int, int], int] = {}
    for rows in (data, data.given):
        assert rows.n_later is not None
        later |= {
            (int(u), int(i)): int(n)
            for u, i, n in zip(rows.user, rows.item, rows.n_later, strict=True)
        }
    assert found.n_later is not None
    pairs = [(int(u), int(i)) for u, i in zip(found.user, found.item, strict=True)]
    assert pairs == sorted(later)
    assert found.n_later.tolist() == [later[pair] for pair in pairs]
    lows = len(data.low_user) + len(data.given.low_user)
    assert (len(found.low_user), found.given, found.negatives) == (lows, None, None)
    plain = dataclasses.replace(data, given=None)
    assert plain.histories() is plain
    assert plain.n_trained_users == N_USERS
    everyone = set(data.user.tolist()) | set(data.low_user.tolist())
    assert data.n_pairs == len(everyone) * N_ITEMS < N_USERS * N_ITEMS


def test_buckets_change_nothing(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, found = rows_of(), []
    for name, size in (("one", 1 << 20), ("many", 50)):
        monkeypatch.setattr(pipeline, "BUCKET_ROWS", size)
        processed = prepare(prepared, tmp_path / name, rows, **{"data.n_negatives": size % 7 + 1})
        found.append([described(load(processed, split, False)) for split in HELD_OUT_SPLITS])
    assert len(list(processed.path.glob("train-*"))) > 3
    assert found[0] == found[1]


def test_the_seed_changes_users_and_given_items(prepared: Prepare, tmp_path: Path) -> None:
    rows = rows_of()
    first = load(prepare(prepared, tmp_path / "a", rows), "test", False)
    other = prepare(prepared, tmp_path / "a", rows, **{"data.split_seed": SEED + 1})
    second = load(other, "test", False)
    assert first.given is not None
    assert second.given is not None
    assert set(first.given.user.tolist()) != set(second.given.user.tolist())
    both = set(first.given.user.tolist()) & set(second.given.user.tolist())
    items = [
        {(u, i) for u, i in zip(given.user.tolist(), given.item.tolist(), strict=True) if u in both}
        for given in (first.given, second.given)
    ]
    assert both
    assert items[0] != items[1]


def described(data: Interactions) -> dict[str, Any]:
    """Return all arrays of the data but the random draws of a bucket."""
    groups = {"": data, "held_out.": data.held_out, "given.": data.given}
    arrays = {
        f"{prefix}{name}": value.tolist()
        for prefix, group in groups.items()
        for name, value in vars(group).items()
        if isinstance(value, np.ndarray)
    }
    return arrays | {"seen": data.seen.items.tolist(), "offsets": data.seen.offsets.tolist()}


TRAINED: dict[str, dict[str, object]] = {
    "least squares": {"model.name": "inner_product", "training.loss": "squared"},
    "least squares by recency": {
        "model.name": "inner_product",
        "training.loss": "squared",
        "training.recency_half_life": 2.0,
    },
    "least squares among candidates": {
        "model.name": "inner_product",
        "training.loss": "squared",
        "evaluation.protocol": "sampled",
        "evaluation.n_candidates": 9,
    },
    "autoencoder": {
        "model.name": "autoencoder",
        "model.dropout": 0.3,
        "training.loss": "softmax",
        "training.negative_sampling": "all",
    },
}


def trained_on(
    rows: list[Row], prepared: Prepare, path: Path, values: dict[str, object]
) -> dict[str, Any]:
    """Return the metrics of each epoch, the weights and the baselines of a validation training."""
    ranking = {name: v for name, v in values.items() if name.startswith("evaluation")}
    processed = prepare(prepared, path, rows, **ranking)
    further = {"training.max_epochs": 2, "model.embedding_dim": 4, "training.learning_rate": 0.03}
    config = replace_values(Config(), {**further, "training.l2": 0.1, **values})
    data = load(processed, "validation", False)
    epochs = list(fit(config, data, seed=5))
    metrics = [
        {name: v for name, v in epoch.metrics.items() if "second" not in name} for epoch in epochs
    ]
    weights = {name: w.tolist() for name, w in epochs[-1].state.model.state_dict().items()}
    assert 0 < metrics[-1]["val_ndcg_at_10"] < 1
    return {"metrics": metrics, "weights": weights, "baselines": score_baselines(data, config)}


def trained_on_both(
    rows: list[Row],
    others: list[Row],
    prepared: Prepare,
    path: Path,
    values: dict[str, object],
) -> list[dict[str, Any]]:
    return [
        trained_on(some, prepared, path / place, values)
        for place, some in (("before", rows), ("after", others))
    ]


def held_out_users(rows: list[Row], code: int) -> set[int]:
    return {u for u, liked in positives_by_user(rows).items() if split_of(u) == code and liked[1:]}


def with_other_rows(rows: list[Row], code: int) -> list[Row]:
    """Return the rows with others, of other items, ratings and times, of a split's users."""
    users = held_out_users(rows, code)
    kept = [row for row in rows if row[0] not in users]
    random = np.random.default_rng(1)
    for u in sorted(users):
        items = {u % N_ITEMS, *random.choice(N_ITEMS, 9, replace=False).tolist()}
        kept += [(u, item, 5 if place < 6 else 2, 7) for place, item in enumerate(items)]
    return kept


def with_other_ranked_items(rows: list[Row]) -> list[Row]:
    """Return the rows with other ranked items of validation's users.

    An item is replaced by an unknown one that would not be given either.
    """
    replaced: dict[tuple[int, int], int] = {}
    for user in held_out_users(rows, VALIDATION):
        given, known = given_of(rows, user), {item for one, item, *_ in rows if one == user}
        hashes = pair_hash(np.full(N_ITEMS, user), np.arange(N_ITEMS), SEED, 2)
        others = [i for i in range(N_ITEMS) if i not in known and hashes[i] > hashes[given].max()]
        ranked = [
            i for i in positives_by_user(rows)[user] if i not in given and i != user % N_ITEMS
        ]
        replaced |= {(user, i): other for i, other in zip(ranked, others, strict=False)}
    return [(u, replaced.get((u, i), i), rating, time) for u, i, rating, time in rows]


@pytest.mark.parametrize("name", TRAINED)
def test_rows_of_test_users_change_nothing_in_validation(
    name: str, prepared: Prepare, tmp_path: Path
) -> None:
    rows = rows_of()
    others = with_other_rows(rows, TEST)
    assert set(rows) != set(others)
    found = trained_on_both(rows, others, prepared, tmp_path, TRAINED[name])
    assert found[0] == found[1]


@pytest.mark.parametrize("name", TRAINED)
def test_held_out_users_change_nothing_that_is_learned(
    name: str, prepared: Prepare, tmp_path: Path
) -> None:
    rows = rows_of()
    others = with_other_rows(rows, VALIDATION)
    found = trained_on_both(rows, others, prepared, tmp_path, TRAINED[name])
    users = {u for u in range(N_USERS) if split_of(u) == TRAIN}
    for of_users in ("users.weight", "latents"):
        weights = [run["weights"].pop(of_users, []) for run in found]
        assert [row for u, row in enumerate(weights[0]) if u in users] == [
            row for u, row in enumerate(weights[1]) if u in users
        ]
        assert not weights[0] or weights[0] != weights[1]
    assert found[0]["weights"] == found[1]["weights"]
    losses = [[epoch["train_loss"] for epoch in run["metrics"]] for run in found]
    assert losses[0] == losses[1]
    assert found[0]["metrics"] != found[1]["metrics"]


@pytest.mark.parametrize("name", TRAINED)
def test_ranked_rows_change_no_user(name: str, prepared: Prepare, tmp_path: Path) -> None:
    rows = rows_of()
    others = with_other_ranked_items(rows)
    assert set(rows) != set(others)
    found = trained_on_both(rows, others, prepared, tmp_path, TRAINED[name])
    assert found[0]["weights"] == found[1]["weights"]
    losses = [[epoch["train_loss"] for epoch in run["metrics"]] for run in found]
    assert losses[0] == losses[1]
    assert found[0]["metrics"] != found[1]["metrics"]


def test_a_config_that_cannot_fold_in_users_is_refused(prepared: Prepare, tmp_path: Path) -> None:
    manifest = prepare(prepared, tmp_path / "a", rows_of()).manifest
    config = replace_values(Config(), {"evaluation.k": 3})
    with pytest.raises(InputError) as error:
        resolve_trained(config, manifest)
    assert str(error.value) == (
        "model.name, training.loss: must fold in users for data.split: users, but got neumf with "
        "the loss bce. Use configs with model.name: autoencoder or diffusion, or with model.name: "
        "inner_product and training.loss: squared, or another data.split."
    )
    for values in TRAINED.values():
        resolve_trained(replace_values(config, values), manifest)
    plain = prepare(prepared, tmp_path / "a", rows_of(), **{"data.split": "random"}).manifest
    assert not plain.holds_out_users
    resolve_trained(config, plain)


def test_candidates_are_no_items_of_their_user(prepared: Prepare, tmp_path: Path) -> None:
    rows = rows_of()
    values = {"evaluation.protocol": "sampled", "evaluation.n_candidates": 9}
    processed = prepare(prepared, tmp_path / "a", rows, **values)
    known = {(user, item) for user, item, *_ in rows}
    for split in HELD_OUT_SPLITS:
        held_out = load(processed, split, False).held_out
        assert held_out is not None
        assert held_out.candidates is not None
        assert held_out.candidates.shape == (len(held_out.user), 9)
        for user, items in zip(held_out.user.tolist(), held_out.candidates.tolist(), strict=True):
            assert not {(user, item) for item in items} & known


def test_users_need_no_times_but_two_positives(prepared: Prepare, tmp_path: Path) -> None:
    lines = [f"{user},{item}" for user in range(40) for item in range(user % 3, 9)]
    (tmp_path / "data.csv").write_text("user,item\n" + "\n".join([*lines, "1,9"]) + "\n")
    data = load(prepared(tmp_path / "data.csv", FRACTIONS), "test", False)
    assert data.given is not None
    assert data.n_later is data.given.n_later is None
    (tmp_path / "few.csv").write_text("user,item\n" + "\n".join(f"{u},{u}" for u in range(9)))
    with pytest.raises(
        InputError, match=r"in validation, but there is none\. It takes users with 2"
    ):
        prepared(tmp_path / "few.csv", FRACTIONS)
