"""`python -m recsys.train`, which trains a chosen config and scores it on test."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recsys.command_line.options import (
    common_options,
    config_option,
    data_option,
    model_option,
    set_option,
)
from recsys.command_line.results import print_result
from recsys.command_line.run import run_command
from recsys.command_line.settings import naming_data, read_config, read_storage
from recsys.errors import InputError, naming
from recsys.storage.path_errors import require_writable

_FLAGS = {"study": "--best-of", "trial": "--trial"}
"""Flag of each argument that an error may name."""


@click.command(
    help="Train the best trial of a study, a given trial, or a config, and score it on test."
)
@click.option("--best-of", metavar="STUDY", help="Train the best trial of this study.")
@click.option("--trial", metavar="STUDY/TRIAL", help="Train this trial.")
@config_option
@data_option
@set_option
@click.option(
    "--seeds",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Train N times, with different seeds.",
)
@click.option(
    "--validate",
    is_flag=True,
    help="Train on the train split only and score on validation. Test is not read.",
)
@model_option("--out", help="Folder of the saved model.  [default: DIR/models/<name>]")
@common_options
def train(
    *,
    best_of: str | None,
    trial: str | None,
    config_file: Path | None,
    data: str | None,
    settings: tuple[str, ...],
    seeds: int,
    validate: bool,
    out: Path | None,
    folder: Path,
    as_json: bool,
) -> int:
    """Train, print, and return the exit code."""
    _require_one({"--best-of": best_of, "--trial": trial, "--config": config_file})
    if out is not None:
        with naming({"folder": "--out"}):
            require_writable(out)
    from recsys.final import choose, run

    if config_file is not None:
        config, _ = read_config(config_file, data, settings)
        chosen = choose.Choice(config_file.stem, config, None, config.study.seed, None, None)
    else:
        storage = read_storage(settings)
        if best_of is not None:
            chosen = choose.choose_best(folder, best_of, storage)
        else:
            chosen = choose.choose_trial(folder, trial or "", storage)
        config, _ = read_config(chosen.config, data, settings)
        chosen = replace(chosen, config=config)
    with naming_data(data):
        answer = run.train(chosen, folder, out, n_seeds=seeds, validate=validate)
    print_result(answer, as_json, _text)
    return 0


def _require_one(options: Mapping[str, object]) -> None:
    given = [flag for flag, value in options.items() if value is not None]
    if len(given) != 1:
        raise InputError(
            "command line",
            f"must have one of {', '.join(options)}",
            f"{' and '.join(given) or 'none'}",
            "Give exactly one.",
        )


def _text(answer: Mapping[str, Any]) -> RenderableType:
    split = "test" if "test" in answer else "validation"
    scores, baselines = answer[split], answer["baselines"]
    table = Table(
        f"{split} ({answer['protocol']})", "model", *baselines, box=None, header_style="bold"
    )
    for name, value in scores.items():
        table.add_row(
            name,
            f"{value:.4f}",
            *(f"{other[name]:.4f}" if name in other else "" for other in baselines.values()),
        )
    lines = [
        f"Trained {answer['epochs']} epochs with {len(answer['seeds'])} seed(s): {answer['model']}"
    ]
    if split == "test":
        lines.append(
            f"Recommend:      python -m recsys.recommend --model {answer['model']} --user ID"
        )
    return Group(table, Text("\n".join(lines)))


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(train, argv, _FLAGS)


if __name__ == "__main__":
    sys.exit(main())
