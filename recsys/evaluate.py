"""`python -m recsys.evaluate`, which scores a saved model on test again."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType
from rich.table import Table

from recsys.command_line.options import common_options, model_option
from recsys.command_line.results import print_result
from recsys.command_line.run import run_command


@click.command(help="Score a saved model on test.")
@model_option("--model", required=True, help="Folder or name of a saved model.")
@common_options
def evaluate(*, model: Path, folder: Path, as_json: bool) -> int:
    """Evaluate, print, and return the exit code."""
    from recsys.final.evaluate import evaluate_model

    print_result(evaluate_model(model, folder), as_json, _text)
    return 0


def _text(answer: Mapping[str, Any]) -> RenderableType:
    table = Table(f"test ({answer['protocol']})", "value", box=None, header_style="bold")
    for name, value in answer["test"].items():
        table.add_row(name, f"{value:.4f}")
    return table


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
