"""The tables: the configs, and the values and seconds of their runs on the data sets.

`configs.parquet` has one config a row, as JSON, by its number. `runs.parquet` has one row for each
ranked epoch of a run: `number`, `set`, `epoch`, `value`, `value_few_users`, `train_seconds` and
`rank_seconds`, which are of the run so far.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from recsys.storage.files import write_atomically

FOLDER = Path(__file__).parent


@dataclass
class Tables:
    """The tables in memory; each addition is written to the files."""

    configs: list[dict[str, Any]]
    runs: pd.DataFrame

    @classmethod
    def read(cls) -> Self:
        """Read the files; the tables are empty if there are none."""
        if not (FOLDER / "runs.parquet").exists():
            return cls([], pd.DataFrame({"number": [], "set": [], "value": []}))
        configs = pd.read_parquet(FOLDER / "configs.parquet")["config"].map(json.loads)
        return cls(configs.tolist(), pd.read_parquet(FOLDER / "runs.parquet"))

    def has(self, number: int, name: str) -> bool:
        """Return whether a config has run on a data set."""
        return bool(((self.runs["number"] == number) & (self.runs["set"] == name)).any())

    def best(self, name: str) -> float:
        """Return the best value on a data set, 0 if there is none."""
        best = self.runs.loc[self.runs["set"] == name, "value"].max()
        return 0.0 if pd.isna(best) else float(best)

    def values(self, name: str) -> list[float | None]:
        """Return the best value of each config on a data set, None if it diverged."""
        best = self.runs[self.runs["set"] == name].groupby("number")["value"].max()
        return [None if pd.isna(value) else float(value) for value in best.sort_index()]

    def add_config(self, config: Mapping[str, Any]) -> None:
        """Add a config with the next number."""
        self.configs.append(dict(config))
        rows = [json.dumps(config) for config in self.configs]
        _write(pd.DataFrame({"config": rows}), FOLDER / "configs.parquet")

    def add_run(self, number: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add the rows of a run."""
        added = pd.DataFrame(rows).assign(set=name, number=number)
        self.runs = pd.concat([self.runs, added], ignore_index=True)
        _write(self.runs, FOLDER / "runs.parquet")


def _write(table: pd.DataFrame, path: Path) -> None:
    with write_atomically(path) as partial:
        table.to_parquet(partial)
