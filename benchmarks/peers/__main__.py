"""Training, ranking, negatives and a whole search, by recsys and by its peers, on the same data.

Speeds are measured in turns on one core. Searches run one after the other on all cores, with
searches of recsys between those of the peers. See README.md in this folder.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks.measure import Row, Target, in_turns, ratios, run, spread
from benchmarks.peers.data import write_splits
from benchmarks.peers.sides import ROOT, Peer, Side, run_search

ALL = frozenset({"training", "ranking", "negatives", "search"})
RECSYS = Peer("recsys", "recsys_adapter", None, ALL)
RECBOLE = Peer("RecBole", "recbole_adapter", "recbole", ALL)
PEERS = (
    RECSYS,
    RECBOLE,
    Peer("WarpRec", "warprec_adapter", "warprec", ALL),
    Peer("Cornac", "cornac_adapter", "cornac", ALL - {"search"}),
    Peer("by hand", "by_hand_adapter", None, ALL),
)
POSITIVES = {256: 1.7, 2048: 2.0}
"""Positives per step, with the multiple of RecBole's speed that recsys must reach."""
REPEATS = 5
SEARCHES = 3
"""Searches of recsys for each peer's one search."""
EPOCH_SECONDS = 0.5
"""Time that a trained epoch of a search may take, everything included."""


def measure() -> Iterator[Row]:
    """Measure everything with the peers that are installed."""
    with tempfile.TemporaryDirectory() as root:
        data = Path(root) / "data"
        data.mkdir()
        write_splits(data)
        installed = [peer for peer in PEERS if peer.python.exists()]
        for peer in PEERS:
            if peer not in installed:
                yield Row(
                    f"{peer.name} skipped: not installed, no {peer.python.relative_to(ROOT)}", {}
                )
        yield from _measure_speeds(installed, data, Path(root))
        yield from _measure_searches(
            [peer for peer in installed if "search" in peer.measures], data, Path(root)
        )


def _measure_speeds(peers: list[Peer], data: Path, root: Path) -> Iterator[Row]:
    with ExitStack() as stack:
        sides = [stack.enter_context(Side(peer, data, root / peer.adapter)) for peer in peers]
        for positives, bound in POSITIVES.items():
            measured = _ask_in_turns(sides, 1e6, "training", positives=positives)
            case = f"training, NeuMF d=16, {positives} positives a step, one core"
            yield _compare(case, "M samples/s", measured, bound)
        yield _compare(
            "ranking all items, NeuMF d=16, one core",
            "users/s",
            _ask_in_turns(sides, 1, "ranking"),
            None,
        )
        yield _compare(
            "drawing negatives, one core", "M/s", _ask_in_turns(sides, 1e6, "negatives"), None
        )


def _ask_in_turns(
    sides: list[Side], scale: float, measure: str, **values: int
) -> dict[str, list[float]]:
    """Return the speeds of the peers that support `measure`, by name, in units of `scale`."""

    def asking(side: Side) -> Callable[[], float]:
        return lambda: side.ask(measure, **values)["per_second"] / scale

    return in_turns(
        {side.peer.name: asking(side) for side in sides if measure in side.peer.measures}, REPEATS
    )


def _compare(case: str, unit: str, measured: Mapping[str, list[float]], bound: float | None) -> Row:
    """Return a row of all speeds, and of recsys' speed as a multiple of each peer's."""
    multiples = {
        name: ratios(measured[RECSYS.name], rates)
        for name, rates in measured.items()
        if name != RECSYS.name
    }
    values = {f"{name}, {unit}": spread(rates) for name, rates in measured.items()}
    values |= {f"recsys / {name}": multiple for name, multiple in multiples.items()}
    if bound is None or RECBOLE.name not in multiples:
        return Row(case, values)
    return Row(case, values, [Target("recsys / RecBole", multiples[RECBOLE.name], bound)])


def _measure_searches(peers: list[Peer], data: Path, root: Path) -> Iterator[Row]:
    others = [peer for peer in peers if peer != RECSYS]
    first, again = [], []
    for turn in range(max(SEARCHES, len(others))):
        folder = root / f"search-{turn}"
        first.append(run_search(RECSYS, data, folder))
        again.append(run_search(RECSYS, data, folder))
        for peer in others[turn : turn + 1]:
            yield _describe(
                peer.name, [run_search(peer, data, root / f"search-{peer.adapter}")], None
            )
    yield _describe("recsys, data to prepare", first, EPOCH_SECONDS)
    yield _describe("recsys, data prepared before", again, EPOCH_SECONDS)


def _describe(name: str, found: list[Mapping[str, float]], bound: float | None) -> Row:
    total = spread([search["total"] / search["epochs"] for search in found])
    values = {
        "whole command, seconds per epoch": total,
        "search alone, seconds per epoch": spread(
            [search["seconds"] / search["epochs"] for search in found]
        ),
        "epochs": spread([search["epochs"] for search in found]),
        "whole command, seconds": spread([search["total"] for search in found]),
    }
    targets = (
        []
        if bound is None
        else [Target("whole command, seconds per epoch", total, bound, at_least=False)]
    )
    return Row(f"search, 12 trials of at most 8 epochs, both cores, {name}", values, targets)


if __name__ == "__main__":
    run("peers", measure)
