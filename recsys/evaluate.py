"""`python -m recsys.evaluate`: score a saved model on test again."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType
from rich.table import Table

from recsys import command_line


@click.command(help="Score a saved model on test.")
@click.option(
    "--model",
    callback=command_line.model_path,
    required=True,
    metavar="MODEL",
    help="Folder of a trained model.",
)
@command_line.dir_option
@command_line.verbose_option
@command_line.quiet_option
@command_line.traceback_option
@command_line.json_option
def evaluate(*, model: Path, folder: Path, as_json: bool) -> int:
    """Parse, evaluate, print; returns the exit code."""
    from recsys.final.evaluate import evaluate_model

    command_line.print_result(evaluate_model(model, folder), as_json, _text)
    return 0


def _text(answer: Mapping[str, Any]) -> RenderableType:
    table = Table(f"test ({answer['protocol']})", "value", box=None, header_style="bold")
    for name, value in answer["test"].items():
        table.add_row(name, f"{value:.4f}")
    return table


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return command_line.run(evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
