"""One whole trial on large data by the command, from Parquet files to the reported epoch.

The data have 30 M interactions of 1 M users with 100 k items; the trial trains the default model
for one epoch. The limit is the bare loop of the same model. It runs before the trial, on one core
like the trial, and draws nothing.
"""

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.commands import Answer, tune
from benchmarks.interactions import draw_index, make_interactions
from benchmarks.measure import Row, Spread, Target, in_turns, run, spread
from benchmarks.preprocessing import FILE_ROWS, in_a_process
from benchmarks.training import N_POSITIVES, bare_loop
from recsys.config.schema import Config, replace_values
from recsys.data.manifest import read_manifest

SIZE = (1_000_000, 100_000, 30_000_000)
"""Users, items and interactions, with repeated ones counted."""
SETTINGS = {"training.batch_size": 8192, "evaluation.max_users": 1000}
BARE_STEPS = 64
REPEATS = 3
MACHINE_MEGABYTES = 24 * 1024**3 / 1e6
"""Memory of a machine that must be enough."""
LOST_SECONDS = 300.0
"""Training time that a retry may lose at most."""
SPACE = "parameters: {model.name: {choices: [neumf]}}\n"


@dataclass
class Saves:
    """Times at which the trial's checkpoints and final weights were written, in Unix seconds."""

    folder: Path
    times: set[float] = field(default_factory=set)

    def look(self) -> None:
        """Add the times of the files that exist now."""
        self.times |= {path.stat().st_mtime for path in self.folder.glob("*/*.safetensors")}

    def longest_gap(self, wall_seconds: float) -> float:
        """Return the longest time without a checkpoint.

        The trial ran for `wall_seconds` and was saved when it ended.
        """
        times = sorted(self.times)
        return max(
            later - earlier
            for earlier, later in itertools.pairwise([times[-1] - wall_seconds, *times])
        )


def measure() -> Iterator[Row]:
    """Measure the bare loop, then the trial."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        bare = spread(in_a_process(write_interactions, folder / "interactions"))
        (folder / "space.yaml").write_text(SPACE)
        settings = [
            flag for path, value in SETTINGS.items() for flag in ("--set", f"{path}={value}")
        ]
        flags = [
            "--data",
            str(folder / "interactions"),
            "--name",
            "large",
            "--trials",
            "1",
            "--max-epochs",
            "1",
            *settings,
        ]
        saves = Saves(folder / "studies" / "large" / "trials")
        answer = tune(folder, folder / "space.yaml", *flags, look=saves.look)
        yield _describe(folder, answer, bare, saves)


def write_interactions(folder: Path) -> list[float]:
    """Write Parquet files of user_id, item_id and timestamp in random order.

    Returns:
        Speeds of the bare loop on these interactions, in million samples per second.
    """
    index = draw_index(*SIZE)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(index.items))
    columns = {"user_id": index.users()[order], "item_id": index.items[order]}
    columns["timestamp"] = rng.integers(1_000_000_000, 1_700_000_000, len(order))
    table = pa.table(columns)
    folder.mkdir()
    for number, start in enumerate(range(0, len(order), FILE_ROWS)):
        pq.write_table(table.slice(start, FILE_ROWS), folder / f"part-{number:04d}.parquet")
    torch.set_num_threads(1)
    data = make_interactions(index, N_POSITIVES, 1)
    return in_turns(
        {"bare loop": bare_loop(replace_values(Config(), SETTINGS), data, BARE_STEPS)}, REPEATS
    )["bare loop"]


def _describe(folder: Path, answer: Answer, bare: Spread, saves: Saves) -> Row:
    """Describe the trial by the study's record, the data's manifest and the measured memory."""
    (trial,) = optuna.load_study(
        study_name="study", storage=f"sqlite:///{folder / 'studies' / 'large' / 'optuna.db'}"
    ).trials
    manifests = [
        read_manifest(path.parent) for path in (folder / "processed").glob("*/manifest.json")
    ]
    (prepared,) = (manifest.seconds for manifest in manifests if manifest is not None)
    metrics, wall, total = (
        trial.user_attrs["metrics"],
        answer.output["wall_seconds"],
        answer.output["total_seconds"],
    )
    speed, reports = metrics["samples_per_second"] / 1e6, len(trial.intermediate_values)
    gap = saves.longest_gap(wall)
    values = {
        "preprocessing, seconds": prepared,
        "loading and starting, seconds": total - prepared - wall,
        "training, seconds": metrics["train_seconds"],
        "ranking, seconds": metrics["rank_seconds"],
        "saving and reporting, seconds": wall - metrics["train_seconds"] - metrics["rank_seconds"],
        "seconds per epoch": wall,
        "fit, M samples/s": speed,
        "reports": reports,
        "checkpoints": len(saves.times),
        "most seconds without a checkpoint": gap,
        "driver MB": answer.own,
        "largest worker MB": answer.worker,
        "private to the largest worker, MB": answer.private,
        "taken from the machine, MB": answer.machine,
    }
    spreads = {name: spread([value]) for name, value in values.items()}
    spreads |= {
        "bare loop, M samples/s": bare,
        "ratio to the bare loop": spread([speed / bare.median]),
    }
    bounds = {
        "taken from the machine, MB": MACHINE_MEGABYTES,
        "most seconds without a checkpoint": LOST_SECONDS,
    }
    targets = [Target(name, spreads[name], bound, at_least=False) for name, bound in bounds.items()]
    targets.append(Target("reports", spreads["reports"], 2))
    return Row(f"{SIZE[2]:,} interactions", spreads, targets)


if __name__ == "__main__":
    run("large", measure)
