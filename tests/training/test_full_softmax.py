import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.config.components import LOSSES, LossEntry
from recsys.config.schema import Config, replace_values
from recsys.data.interactions import Interactions
from recsys.training import full_softmax, optimiser
from recsys.training.checkpoint import TrainingState, start_training
from recsys.training.fit import fit
from recsys.training.user_batch import UserBatch
from tests.training.small_data import make_interactions, two_tastes


def make_config(name: str = "inner_product", k: int = 10, **training: Any) -> Config:
    settings = {
        "loss": "softmax",
        "negative_sampling": "all",
        "batch_size": 100,
        "n_negatives": 3,
        "learning_rate": 0.02,
    }
    model = {"name": name, "embedding_dim": 4}
    return Config.model_validate(
        {
            "model": model,
            "training": {**settings, "max_epochs": 8, **training},
            "evaluation": {"k": k},
        }
    )


def one_epoch(data: Interactions, **training: Any) -> list[UserBatch]:
    rows, generator = (
        full_softmax.user_rows(make_config(**training), data, "cpu", n_segments=1),
        torch.Generator().manual_seed(0),
    )
    order = rows.shuffle(generator)
    return [
        batch
        for segment in range(rows.n_segments)
        for batch in rows.batches(order, segment, generator)
    ]


def test_an_epoch_has_every_user_once_with_all_its_positives() -> None:
    data = two_tastes()  # 60 users of 8 positives and 2 low ratings, 40 items
    epoch = one_epoch(data)
    positives = [
        (int(batch.user[row]), column)
        for batch in epoch
        for row, column in zip(batch.row.tolist(), batch.column.tolist(), strict=True)
    ]
    assert Counter(positives) == Counter(zip(data.user.tolist(), data.item.tolist(), strict=True))
    excluded = [
        (int(batch.user[index // 40]), index % 40)
        for batch in epoch
        for index in batch.excluded.tolist()
    ]
    assert Counter(excluded) == Counter(
        zip(data.seen.users().tolist(), data.seen.items.tolist(), strict=True)
    )
    # 480 positives in 5 batches of 12 users; each has seen 10 of 40 items, so 3 draws stand for 30.
    assert [len(batch.user) for batch in epoch] == [12] * 5
    assert epoch[0].item is None
    assert epoch[0].shift.tolist() == pytest.approx([math.log(3 / 30)] * 12)
    assert (epoch[0].n_drawn, epoch[0].top) == (40, 10)


def test_a_large_catalogue_is_drawn_from_and_positives_keep_a_column(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(full_softmax, "MAX_ITEMS", 16)
    data = two_tastes()
    liked = set(zip(data.user.tolist(), data.item.tolist(), strict=True))
    seen = set(zip(data.seen.users().tolist(), data.seen.items.tolist(), strict=True))
    every_drawn = set()
    for batch in one_epoch(data):
        assert batch.item is not None
        item, width = batch.item.tolist(), len(batch.item)
        assert len(set(item)) == width > 16
        assert (batch.n_drawn, batch.top) == (16, 4)  # rank 10 of 40
        indices = zip(batch.row.tolist(), batch.column.tolist(), strict=True)
        pairs = {(int(batch.user[row]), item[column]) for row, column in indices}
        assert pairs == {pair for pair in liked if pair[0] in batch.user.tolist()}
        excluded = set(batch.excluded.tolist())
        for row, (column, identity) in itertools.product(range(len(batch.user)), enumerate(item)):
            is_seen = (int(batch.user[row]), identity) in seen
            assert (row * width + column in excluded) == (is_seen or column >= 16)
        n_unseen = [
            16 - sum((user, identity) in seen for identity in item[:16])
            for user in batch.user.tolist()
        ]
        assert batch.shift.tolist() == pytest.approx([math.log(3 / n) for n in n_unseen])
        every_drawn |= set(item[:16])
    assert len(every_drawn) > 30  # of 40; 5 draws of 16 miss each once in 13


def test_the_scores_of_a_batch_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_softmax, "MAX_SCORES", 10 * 40)
    assert [len(batch.user) for batch in one_epoch(two_tastes())] == [10] * 6


def test_a_user_of_many_positives_is_a_batch_alone() -> None:
    train = [(0, item) for item in range(30)] + [(user, 0) for user in range(1, 11)]
    epoch = one_epoch(make_interactions(11, 40, train, []), batch_size=4)
    assert max(len(batch.row) for batch in epoch) >= 30
    assert sum(len(batch.user) for batch in epoch) == 11


@pytest.mark.parametrize("max_items", [1 << 13, 2])
def test_loss_and_penalty_by_hand(max_items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_softmax, "MAX_ITEMS", max_items)
    # User 0 likes item 0 (logit 1), rated item 3 low (5), has not seen items 1 and 2 (2 and 3).
    data = make_interactions(2, 4, [(0, 0)], [], low=[(0, 3)])
    config = make_config(l2=10.0, learning_rate=1e-12)
    config = Config.model_validate(
        config.model_dump()
        | {"model": {"name": "inner_product", "embedding_dim": 1, "bias": False}}
    )
    state = start_training(config, 2, 4, 0, "cpu")
    state.model.load_state_dict(
        {
            "users.weight": torch.tensor([[1.0], [0.0]]),
            "items.weight": torch.tensor([[1.0], [2.0], [3.0], [5.0]]),
        }
    )
    losses = []
    for seed in range(8):
        (epoch,) = fit(config, data, seed, n_epochs=1, state=state, rank=False)
        losses.append(epoch.metrics["train_loss"])
        state = start_training(config, 2, 4, 0, "cpu")
        state.model.load_state_dict(
            {
                "users.weight": torch.tensor([[1.0], [0.0]]),
                "items.weight": torch.tensor([[1.0], [2.0], [3.0], [5.0]]),
            }
        )

    def expected(*unseen: float) -> float:
        mean = sum(math.exp(logit) for logit in unseen) / len(unseen)
        return math.log1p(3 * mean / math.exp(1)) + 10 * (1 + 1)

    if max_items > 4:
        assert losses == pytest.approx([expected(2, 3)] * 8, rel=1e-5)
    else:
        # Of two items drawn, one or both are unseen; if none is, nothing competes.
        possible = [expected(2, 3), expected(2), expected(3), 20.0]
        assert all(min(abs(loss - value) for value in possible) < 1e-3 for loss in losses)
        assert len({round(loss, 3) for loss in losses}) > 1


@pytest.mark.parametrize(
    ("k", "lowest"), [(1, 5.0), (2, 3.0), (4, 1.0), (9, 1.0)], ids="rank {}".format
)
def test_weights_of_the_top_by_hand(k: int, lowest: float) -> None:
    # One user with scores 1, 2, 3 and 5 of its items; item 1 is its positive, item 3 a low rating.
    config = make_config(k=k, top_k_weight=2.0, learning_rate=1e-12)
    config = replace_values(config, {"model.embedding_dim": 1, "model.bias": False})
    data = make_interactions(1, 4, [(0, 1)], [], low=[(0, 3)])
    state = start_training(config, 1, 4, 0, "cpu")
    state.model.load_state_dict(
        {"users.weight": torch.ones(1, 1), "items.weight": torch.tensor([[1.0], [2], [3], [5]])}
    )
    (epoch,) = fit(config, data, 0, n_epochs=1, state=state, rank=False)
    loss = math.log1p(3 * (math.exp(1) + math.exp(3)) / 2 / math.exp(2))
    weight = 1 / (1 + math.exp(-(2 - lowest) / 2))
    assert epoch.metrics["train_loss"] == pytest.approx(weight * loss, rel=1e-5)


def test_the_top_is_that_of_the_drawn_items() -> None:
    # Logits 1 and 3 of the drawn items, and 5 of the positive, which was not drawn.
    config = make_config(top_k_weight=2.0)
    config = replace_values(config, {"model.embedding_dim": 1, "model.bias": False})
    model = start_training(config, 1, 3, 0, "cpu").model
    model.load_state_dict(
        {"users.weight": torch.ones(1, 1), "items.weight": torch.tensor([[1.0], [3], [5]])}
    )
    zero, item = torch.tensor([0]), torch.arange(3)
    batch = UserBatch(
        user=zero,
        item=item,
        row=zero,
        column=item[2:],
        weight=None,
        excluded=item[2:],
        shift=torch.zeros(1),
        n_drawn=2,
        top=1,
    )
    loss = math.log1p((math.exp(1) + math.exp(3)) / math.exp(5))
    weight = 1 / (1 + math.exp(-(5 - 3) / 2))
    assert batch.loss(model, config.training).item() == pytest.approx(weight * loss, rel=1e-5)


def constant_loss(logits: torch.Tensor, row: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
    return 7 + 0 * logits.sum() * row


def test_a_loss_declares_its_function_of_all_items(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = LossEntry("recsys.training.losses:bpr", full_code=f"{__name__}:constant_loss")
    monkeypatch.setitem(LOSSES, "constant", entry)
    (epoch,) = fit(make_config(loss="constant"), two_tastes(), 0, n_epochs=1, rank=False)
    assert epoch.metrics["train_loss"] == pytest.approx(7)


@pytest.mark.parametrize(
    ("name", "max_items"), [("inner_product", 1 << 13), ("gmf", 1 << 13), ("inner_product", 25)]
)
def test_it_learns_and_resumes_bit_for_bit(
    name: str, max_items: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_softmax, "MAX_ITEMS", max_items)
    monkeypatch.setattr(optimiser, "MIN_VALUES", -math.inf)
    config, data = make_config(name, l2=1e-3, max_epochs=40), two_tastes()
    unbroken = []
    for epoch in fit(config, data, 3):
        unbroken.append(epoch.metrics)
        if epoch.epoch == 20:
            epoch.state.save(tmp_path / "state")
    # A user has 20 items to its taste and has seen 8 of them: by chance a third of the users would
    # hit, of the right taste all but two.
    assert max(metrics["val_hit_rate_at_10"] for metrics in unbroken) > 0.7
    state = TrainingState.load(tmp_path / "state", config, data.n_users, data.n_items, "cpu")
    resumed = [epoch.metrics for epoch in fit(config, data, 3, state=state)]
    for key in ("train_loss", "val_ndcg_at_10"):
        assert [metrics[key] for metrics in resumed] == [metrics[key] for metrics in unbroken[19:]]


def test_segments_have_whole_users() -> None:
    rows, generator = (
        full_softmax.user_rows(make_config(batch_size=80), two_tastes(), "cpu", n_segments=3),
        torch.Generator().manual_seed(0),
    )
    order = rows.shuffle(generator)
    n_rows = [
        [len(batch.row) for batch in rows.batches(order, segment, generator)]
        for segment in range(3)
    ]
    assert n_rows == [[80, 80]] * 3
    assert [rows.n_rows_of(order, n) for n in range(4)] == [0, 160, 320, 480]
    assert [rows.n_samples_of(order, n) for n in range(4)] == [0, 20 * 40, 40 * 40, 60 * 40]
