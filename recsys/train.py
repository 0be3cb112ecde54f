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
    "--ensemble",
    "n_steps",
    metavar="K",
    type=click.IntRange(min=2, max=50),
    help="With --best-of: train an ensemble of up to K of the study's trials.",
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
    n_steps: int | None,
    validate: bool,
    out: Path | None,
    folder: Path,
    as_json: bool,
) -> int:
    """Train, print, and return the exit code."""
    _check_options(
        {"--best-of": best_of, "--trial": trial, "--config": config_file}, seeds, n_steps
    )
    if out is not None:
        if not out.name:
            raise InputError(
                "--out", "must name a folder", repr(str(out)), "Give its path from outside."
            )
        with naming({"folder": "--out"}):
            require_writable(out)
    from recsys.final import choose, ensemble, run

    if config_file is not None:
        config, _ = read_config(config_file, data, settings)
        choices = [choose.Choice(config_file.stem, config, None, config.study.seed, None, None)]
    else:
        storage = read_storage(settings)
        if n_steps is not None:
            limit = ensemble.CANDIDATES_PER_STEP * n_steps
            choices = choose.choose_candidates(folder, best_of or "", limit, storage)
        elif best_of is not None:
            choices = [choose.choose_best(folder, best_of, storage)]
        else:
            choices = [choose.choose_trial(folder, trial or "", storage)]
        choices = [
            replace(choice, config=read_config(choice.config, data, settings)[0])
            for choice in choices
        ]
    with naming_data(data):
        answer = (
            run.train(choices[0], folder, out, n_seeds=seeds, validate=validate)
            if n_steps is None
            else ensemble.train_ensemble(choices, folder, out, n_steps=n_steps, validate=validate)
        )
    print_result(answer, as_json, _text if n_steps is None else _ensemble_text)
    return 0


def _check_options(options: Mapping[str, object], seeds: int, n_steps: int | None) -> None:
    given = [flag for flag, value in options.items() if value is not None]
    if len(given) != 1:
        raise InputError(
            "command line",
            f"must have one of {', '.join(options)}",
            " and ".join(given) or "none",
            "Give exactly one.",
        )
    if n_steps is None:
        return
    if given != ["--best-of"]:
        raise InputError(
            "--ensemble", "must come with --best-of", given[0], "Name the study of its members."
        )
    if seeds != 1:
        raise InputError(
            "--seeds", "must be 1 with --ensemble", seeds, "Each member has its trial's seed."
        )


def _text(answer: Mapping[str, Any]) -> RenderableType:
    split = _last_split(answer)
    trained = f"Trained {answer['epochs']} epochs with {len(answer['seeds'])} seed(s)"
    return Group(
        _table(answer, split, {"model": answer[split], **answer["baselines"]}),
        _closing_lines(answer, trained),
    )


def _ensemble_text(answer: Mapping[str, Any]) -> RenderableType:
    steps = Table("step", "trial", "model", "loss", "validation", box=None, header_style="bold")
    for step in answer["selection"]:
        shown = [str(step[name]) for name in ("step", "trial", "model", "loss")]
        steps.add_row(*shown, f"{step['value']:.4f}")
    tables = [steps]
    for split in ("validation", "test"):
        if split in answer:
            single = answer["single"]
            models = {"ensemble": answer[split], f"trial {single['trial']}": single[split]}
            others = answer["baselines"] if split == _last_split(answer) else {}
            tables.append(_table(answer, split, {**models, **others}))
    members = ", ".join(f"{one['weight']:.2f} trial {one['trial']}" for one in answer["members"])
    return Group(*tables, _closing_lines(answer, f"Trained an ensemble of {members}"))


def _last_split(answer: Mapping[str, Any]) -> str:
    return "test" if "test" in answer else "validation"


def _closing_lines(answer: Mapping[str, Any], trained: str) -> Text:
    lines = [f"{trained}: {answer['model']}"]
    if "test" in answer:
        lines.append(
            f"Recommend:      python -m recsys.recommend --model {answer['model']} --user ID"
        )
    return Text("\n".join(lines))


def _table(
    answer: Mapping[str, Any], split: str, models: Mapping[str, Mapping[str, float]]
) -> Table:
    """Return a table of the metrics on a split, with a column for each model."""
    table = Table(f"{split} ({answer['protocol']})", *models, box=None, header_style="bold")
    for name in answer[split]:
        values = (scores.get(name) for scores in models.values())
        table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values))
    return table


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(train, argv, _FLAGS)


if __name__ == "__main__":
    sys.exit(main())
