"""`python -m recsys.preprocess`, which reads, splits and encodes a data set before a search."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from recsys.command_line.options import common_options, config_option, data_option, set_option
from recsys.command_line.results import print_result
from recsys.command_line.run import run_command
from recsys.command_line.settings import naming_data, read_config

_LABELS = {"n_low": "low ratings", "n_cold_users": "cold test users"}
"""Labels of counts whose names need the context of the manifest."""


@click.command(help="Read, split and encode a data set before a search.")
@data_option
@config_option
@set_option
@common_options
def preprocess(
    *,
    data: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    folder: Path,
    as_json: bool,
) -> int:
    """Preprocess, print, and return the exit code."""
    config, _ = read_config(config_file, data, settings)
    from recsys.data.preprocessing import pipeline

    with naming_data(data):
        processed = pipeline.prepare(config, folder)
    answer = {
        "path": str(processed.path),
        "fingerprint": processed.fingerprint,
        "notes": processed.manifest.notes,
        **processed.manifest.counts(),
    }
    print_result(answer, as_json, _text)
    return 0


def _text(answer: Mapping[str, Any]) -> RenderableType:
    counts = {
        _LABELS.get(name, name.removeprefix("n_").replace("_", " ")): count
        for name, count in answer.items()
        if name.startswith("n_")
    }
    width = max(map(len, counts))
    lines = [f"  {label:<{width}}{count:>14,}" for label, count in counts.items()]
    return "\n".join([answer["path"], *lines])


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(preprocess, argv)


if __name__ == "__main__":
    sys.exit(main())
