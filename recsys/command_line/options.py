"""Options that several commands have.

The commands take them as decorators.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from recsys.console.verbosity import QUIET, VERBOSE, set_verbosity
from recsys.errors import naming
from recsys.storage.s3 import open_folder

DEFAULT_FOLDER = Path("experiments")


def _open_dir(context: click.Context, option: click.Parameter, place: str) -> Path:
    with naming({"folder": option.opts[0]}):
        path = open_folder(place)
    folder: Path = click.Path(file_okay=False, path_type=Path).convert(path, option, context)
    return folder


def _open_model(_context: click.Context, option: click.Parameter, place: str | None) -> Path | None:
    if place is None:
        return None
    with naming({"folder": option.opts[0]}):
        return open_folder(place)


def _verbosity(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def choose(_context: click.Context, _option: click.Parameter, given: bool) -> None:
        if given:
            set_verbosity(level)

    return choose


config_option = click.option(
    "--config", "config_file", type=Path, metavar="FILE", help="Config file (YAML)."
)
data_option = click.option(
    "--data",
    metavar="NAME|PATH",
    help="Name of a data set, or path of a file or folder (data.source).",
)
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Set any config path, such as training.batch_size=512. May be repeated.",
)


def model_option(flag: str, **attributes: Any) -> Callable[[Any], Any]:
    """Return an option that takes the folder of a saved model, on disk or in S3."""
    return click.option(flag, callback=_open_model, metavar="MODEL", **attributes)


dir_option = click.option(
    "--dir",
    "folder",
    callback=_open_dir,
    metavar="DIR|s3://BUCKET/PREFIX",
    default=str(DEFAULT_FOLDER),
    show_default=True,
    help="Folder of processed data, studies, models and runs.",
)
verbose_option = click.option(
    *("-v", "--verbose"),
    is_flag=True,
    expose_value=False,
    callback=_verbosity(VERBOSE),
    help="Print each step of the work.",
)
quiet_option = click.option(
    *("-q", "--quiet"),
    is_flag=True,
    expose_value=False,
    callback=_verbosity(QUIET),
    help="Print only the result and errors.",
)
traceback_option = click.option(
    "--traceback", is_flag=True, expose_value=False, help="Print a traceback with every error."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object."
)


def common_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options that every command has."""
    for option in (json_option, traceback_option, quiet_option, verbose_option, dir_option):
        command = option(command)
    return command
