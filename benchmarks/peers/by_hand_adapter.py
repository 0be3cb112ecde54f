"""Code written without a library: a PyTorch model, a DataLoader over samples, Optuna's threads."""

import functools
import itertools
import math
import random
import time
from collections.abc import Iterator

import optuna
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers import task
from benchmarks.peers.answering import Answer, answer, rate, read_pairs


class Samples(Dataset[tuple[int, int, float]]):
    """Positives, and unseen items drawn anew for each epoch."""

    def __init__(self) -> None:
        self.positives = list(zip(*read_pairs("train"), strict=True))
        self.seen = set(self.positives)
        self.rows: list[tuple[int, int, float]] = []

    def draw(self) -> None:
        """Draw new negatives."""
        n_items = sizes()[1]
        self.rows = [(user, item, 1.0) for user, item in self.positives]
        for user, _ in self.positives:
            for _ in range(task.N_NEGATIVES):
                item = random.randrange(n_items)
                while (user, item) in self.seen:
                    item = random.randrange(n_items)
                self.rows.append((user, item, 0.0))

    def __len__(self) -> int:
        return len(self.positives) * (1 + task.N_NEGATIVES)

    def __getitem__(self, index: int) -> tuple[int, int, float]:
        return self.rows[index]


class InnerProduct(nn.Module):
    """The product of a user's and an item's embedding."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        n_users, n_items = sizes()
        self.user, self.item = nn.Embedding(n_users, dim), nn.Embedding(n_items, dim)
        for embedding in (self.user, self.item):
            nn.init.normal_(embedding.weight, std=0.01)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Return logits (batch,) of users (batch,) and items (batch,)."""
        logits: Tensor = (self.user(user) * self.item(item)).sum(-1)
        return logits


class NeuMF(nn.Module):
    """A product of embeddings and a tower on others, joined by a linear layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        embeddings = [nn.Embedding(size, dim) for size in sizes() * 2]
        for embedding in embeddings:
            nn.init.normal_(embedding.weight, std=0.01)
        self.embeddings = nn.ModuleList(embeddings)
        widths = [2 * dim, *(width * dim // task.DIM for width in task.TOWER)]
        layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
        self.tower = nn.Sequential(*itertools.chain.from_iterable(layers))
        self.join = nn.Linear(dim + widths[-1], 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Return logits (batch,) of users (batch,) and items (batch,)."""
        user_gmf, item_gmf, user_mlp, item_mlp = (
            embedding(ids) for embedding, ids in zip(self.embeddings, (user, item) * 2, strict=True)
        )
        tower = self.tower(torch.cat([user_mlp, item_mlp], -1))
        logits: Tensor = self.join(torch.cat([user_gmf * item_gmf, tower], -1)).squeeze(-1)
        return logits


MODELS = {"neumf": NeuMF, "inner_product": InnerProduct}


def train(positives: int) -> Answer:
    """Measure the samples per second of training."""
    torch.set_num_threads(1)
    epochs = _epochs(NeuMF(task.DIM), positives, 1e-3)
    return rate(lambda: next(epochs), len(_positives()[0]) * (1 + task.N_NEGATIVES))


def rank() -> Answer:
    """Measure the users per second, with all items ranked."""
    torch.set_num_threads(1)
    model = NeuMF(task.DIM)
    return rate(lambda: ndcg(model), len(read_pairs("validation")[0]))


def draw() -> Answer:
    """Measure the negatives per second."""
    samples = Samples()
    return rate(samples.draw, len(samples.positives) * task.N_NEGATIVES)


def search() -> Answer:
    """Search with Optuna's TPE and successive halving, one thread per trial."""
    torch.set_num_threads(1)
    low, high = task.LEARNING_RATES
    n_epochs = 0
    start = time.perf_counter()

    def objective(trial: optuna.Trial) -> float:
        nonlocal n_epochs
        model = MODELS[trial.suggest_categorical("model", list(MODELS))](
            trial.suggest_categorical("dim", task.DIMS)
        )
        best = 0.0
        epochs = _epochs(
            model, task.POSITIVES, trial.suggest_float("learning_rate", low, high, log=True)
        )
        for epoch in range(1, task.EPOCHS + 1):
            next(epochs)
            n_epochs += 1
            best = max(best, ndcg(model))
            trial.report(best, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return best

    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    study.optimize(objective, n_trials=task.TRIALS, n_jobs=task.CONCURRENT)
    return {"epochs": n_epochs, "seconds": time.perf_counter() - start}


@functools.cache
def _positives() -> tuple[list[int], list[int]]:
    return read_pairs("train")


@functools.cache
def sizes() -> tuple[int, int]:
    """Return the numbers of users and items."""
    users, items = zip(*map(read_pairs, task.SPLITS), strict=True)
    return 1 + max(map(max, users)), 1 + max(map(max, items))


def _epochs(model: nn.Module, positives: int, learning_rate: float) -> Iterator[None]:
    """Train an epoch at each step."""
    samples = Samples()
    loader = DataLoader(samples, batch_size=positives * (1 + task.N_NEGATIVES), shuffle=True)
    adam = torch.optim.Adam(model.parameters(), lr=learning_rate)
    loss = nn.BCEWithLogitsLoss()
    while True:
        samples.draw()
        model.train()
        for user, item, label in loader:
            adam.zero_grad()
            torch.autograd.backward(loss(model(user, item), label.float()))
            adam.step()
        yield


@torch.no_grad()
def ndcg(model: nn.Module) -> float:
    """Return NDCG@10 of the validation items, ranked among all items but those of training."""
    n_users, n_items = sizes()
    train_user, train_item = map(torch.tensor, _positives())
    seen = torch.zeros(n_users, n_items, dtype=torch.bool)
    seen[train_user, train_item] = True
    users, targets = read_pairs("validation")
    items = torch.arange(n_items)
    total = 0.0
    model.eval()
    for user, target in zip(users, targets, strict=True):
        scores = model(torch.full_like(items, user), items).masked_fill(seen[user], -math.inf)
        rank = int((scores > scores[target]).sum())
        total += 1 / math.log2(2 + rank) if rank < 10 else 0.0
    return total / len(users)


if __name__ == "__main__":
    answer({"training": train, "ranking": rank, "negatives": draw, "search": search})
