"""Results of a comparison, in one folder: the searches, their scores, and most popular items."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.search_quality.outcome import Outcome, Searched, outcome_of
from benchmarks.search_quality.scores import Scored
from recsys.storage.files import write_atomically


@dataclass(frozen=True)
class Comparison:
    """The folder of a comparison's results.

    Results are numbers alone, so they are kept in the repository.
    """

    folder: Path = Path(__file__).parent / "results"

    def search(self, name: str) -> Searched | None:
        """Return a search by the name of its files, None if it has not been run."""
        path = self._path("searches", name)
        return _search(path) if path.exists() else None

    def is_scored(self, name: str) -> bool:
        """Return whether a search has its scores."""
        return self._path("scores", name).exists()

    def store_search(self, name: str, search: Searched) -> None:
        """Store a search."""
        self._write(self._path("searches", name), search.as_json())

    def store_scores(self, name: str, scored: Scored) -> None:
        """Store the scores of a search."""
        rows = [[*key, value] for key, value in sorted(scored.scores.items())]
        tree = {"difference": scored.difference, "scores": rows}
        self._write(self._path("scores", name), tree)

    def outcomes(self) -> Iterator[Outcome]:
        """Yield the searches that have their scores."""
        for path in sorted((self.folder / "scores").glob("*.json")):
            yield outcome_of(_search(self._path("searches", path.stem)), _scored(path).scores)

    def largest_difference(self) -> float:
        """Return the largest difference between a value and the same value trained again."""
        paths = (self.folder / "scores").glob("*.json")
        return max((_scored(path).difference for path in paths), default=0.0)

    def store_popular(self, data: str, value: float) -> None:
        """Store the value of most popular items on a data set."""
        self._write(self._path("popular", data), value)

    def popular(self) -> dict[str, float]:
        """Return the value of most popular items by data set."""
        paths = sorted((self.folder / "popular").glob("*.json"))
        return {path.stem: float(path.read_text(encoding="utf-8")) for path in paths}

    def _path(self, kind: str, name: str) -> Path:
        return self.folder / kind / f"{name}.json"

    @staticmethod
    def _write(path: Path, tree: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as file:
            file.write_text(json.dumps(tree) + "\n", encoding="utf-8")


def _search(path: Path) -> Searched:
    return Searched.from_json(json.loads(path.read_text(encoding="utf-8")))


def _scored(path: Path) -> Scored:
    tree = json.loads(path.read_text(encoding="utf-8"))
    return Scored({(trial, epoch): v for trial, epoch, v in tree["scores"]}, tree["difference"])
