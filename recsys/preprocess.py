"""`python -m recsys.preprocess`: read, split and encode a data set ahead of a search."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from recsys import command_line


@click.command(help="Read, split and encode a data set ahead of a search.")
@command_line.data_option
@command_line.config_option
@command_line.set_option
@command_line.dir_option
@command_line.verbose_option
@command_line.quiet_option
@command_line.traceback_option
@command_line.json_option
def preprocess(
    *,
    data: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    folder: Path,
    as_json: bool,
) -> int:
    """Parse, preprocess, print; returns the exit code."""
    config, _ = command_line.read_config(config_file, data, settings)
    from recsys.data.preprocessing import pipeline
    from recsys.data.processed import resolve

    processed = pipeline.prepare(config, folder)
    resolve(config, processed.manifest)
    answer = {
        "path": str(processed.path),
        "fingerprint": processed.fingerprint,
        "notes": processed.manifest.notes,
        **processed.manifest.counts(),
    }
    command_line.print_result(answer, as_json, _text)
    return 0


def _text(answer: Mapping[str, Any]) -> RenderableType:
    counts = "\n".join(
        f"  {name.removeprefix('n_').replace('_', ' '):<14}{count:>12,}"
        for name, count in answer.items()
        if name.startswith("n_")
    )
    return f"{answer['path']}\n{counts}"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return command_line.run(preprocess, argv)


if __name__ == "__main__":
    sys.exit(main())
