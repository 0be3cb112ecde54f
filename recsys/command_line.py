"""What all commands share: their common options, results apart from progress, and mistakes told in one line.

Beside the commands. A result goes to standard output, once; progress, logs and whatever workers print go to standard error.
"""

import atexit
import gc
import json
import logging
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console, RenderableType

from recsys.config.files import load_config
from recsys.config.schema import Config
from recsys.config.yaml_text import parse_yaml
from recsys.console.streams import open_streams, output_apart, result_stream
from recsys.console.verbosity import NORMAL, QUIET, VERBOSE, set_verbosity
from recsys.errors import InputError
from recsys.storage.credentials import hide_passwords_of, without_passwords
from recsys.storage.s3 import open_folder, restore_urls
from recsys.storage.surroundings import refusal

INTERRUPTED = 130
PLAIN_WIDTH = 200
DEFAULT_FOLDER = Path("experiments")


def _folder(context: click.Context, option: click.Parameter, place: str) -> Path:
    local: Path = click.Path(file_okay=False, path_type=Path).convert(
        open_folder(place), option, context
    )
    return local


def model_path(_context: click.Context, _option: click.Parameter, place: str | None) -> Path | None:
    """The path of an option that takes the folder of a model, on disk or in S3."""
    return None if place is None else open_folder(place)


config_option = click.option(
    "--config", "config_file", type=Path, metavar="FILE", help="Config file (YAML)."
)
data_option = click.option(
    "--data", metavar="NAME|PATH", help="Data set of the catalog, or a path (data.source)."
)
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Set one config path; may be repeated.",
)
dir_option = click.option(
    "--dir",
    "folder",
    callback=_folder,
    metavar="DIR|s3://BUCKET/PREFIX",
    default=str(DEFAULT_FOLDER),
    show_default=True,
    help="Data, studies, models, runs.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object."
)
TRACEBACK = "RECSYS_TRACEBACK"
"""Environment variable that does what `--traceback` does."""


def _ask_for_traceback(context: click.Context, _option: click.Parameter, given: bool) -> None:
    if given:
        context.meta[TRACEBACK] = True


traceback_option = click.option(
    "--traceback",
    is_flag=True,
    expose_value=False,
    callback=_ask_for_traceback,
    help="Show the traceback of any error.",
)


def _verbosity(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def choose(_context: click.Context, _option: click.Parameter, given: bool) -> None:
        if given:
            set_verbosity(level)

    return choose


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
    help="Print the result and errors alone.",
)


def run(command: click.Command, argv: Sequence[str] | None) -> int:
    """Run a command and return its exit code: 0 done, 2 the user's input is wrong, 130 interrupted, 1 anything else."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Told())
        logging.lastResort.setLevel(VERBOSE)
    set_verbosity(NORMAL)
    if argv is None:
        open_streams()
        _let_imports_live()
    context: click.Context | None = None
    try:
        # Parsing comes before the outputs are set apart: --help belongs on standard output.
        arguments = sys.argv[1:] if argv is None else list(argv)
        hide_passwords_of([*arguments, *os.environ.values()])
        context = command.make_context(f"python -m recsys.{command.name}", arguments)
        with context, output_apart(is_whole_process=argv is None), _ended_alike():
            return int(command.invoke(context) or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.UsageError as error:
        print(as_told(f"error: {_usage_mistake(error)}"), file=sys.stderr)
        return 2
    except Exception as error:
        asked = bool(os.environ.get(TRACEBACK)) or (
            context is not None and TRACEBACK in context.meta
        )
        return tell(error, None if context is None else context.params.get("folder"), asked)


def _let_imports_live() -> None:
    """Keep Python from looking for garbage among the 700,000 objects of torch, Ray and MLflow, while they come and as it ends.

    It would take a quarter of their import's time, and more than a second after the last line.
    """
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)


def tell(error: Exception, folder: Path | None = None, with_traceback: bool = False) -> int:
    """Print the error that ended a command with this `--dir`, an `InputError` in one line, and return the exit code."""
    if (refused := refusal(error, folder)) is not None:
        line, code = refused
        print(as_told(f"error: {line}"), file=sys.stderr)
        return code
    is_input = isinstance(error, InputError)
    if not is_input or with_traceback:
        print(as_told("".join(traceback.format_exception(error))), file=sys.stderr, end="")
    if is_input:
        print(as_told(f"error: {error}"), file=sys.stderr)
    return 2 if is_input else 1


def read_config(
    base: Path | Config | None,
    data: str | None,
    settings: Sequence[str],
    flags: Mapping[str, tuple[str, str | None]] | None = None,
) -> tuple[Config, set[str]]:
    """The effective config of a command, and the paths that its flags and `--set` decided.

    Args:
        base: the value of `--config`, or a config that was chosen otherwise.
        data: the value of `--data`.
        settings: the values of `--set`.
        flags: config path -> (flag, its text or None) for the command's own flags; texts are YAML values.

    Raises:
        InputError: if the file is missing; listing every mistake.
    """
    given: dict[str, tuple[str, object]] = {} if data is None else {"data.source": ("--data", data)}
    for path, (flag, text) in (flags or {}).items():
        if text is not None:
            given[path] = (flag, parse_yaml(text, flag))
    return load_config(base, settings, given), {
        *given,
        *(setting.partition("=")[0] for setting in settings),
    }


def given_storage(settings: Sequence[str]) -> str | None:
    """The database of a study's record that `--set` or the environment names, None where neither does; raises a mistake in it."""
    return load_config(
        None, [setting for setting in settings if setting.startswith("study.storage=")]
    ).study.storage


def print_result(
    answer: Mapping[str, Any],
    as_json: bool,
    describe: Callable[[Mapping[str, Any]], RenderableType],
) -> None:
    """Print the result of a command on standard output: one JSON object, or what `describe` makes of it.

    No text of the data controls a terminal. JSON has the same values all the same, as it reads the escapes.
    """
    stream = result_stream()
    told = escaped(restore_urls(json.dumps(answer, ensure_ascii=False, allow_nan=not as_json)))
    try:
        if as_json:
            print(told, file=stream, flush=True)
        else:
            width = None if stream.isatty() else PLAIN_WIDTH
            console = Console(
                file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True
            )
            console.print(describe(_with_texts_escaped(json.loads(told))))
    except OSError as error:
        raise OSError(error.errno, error.strerror, "/dev/stdout") from None


def dir_flag(folder: Path) -> str:
    """What a suggested command needs to find the same folder."""
    return "" if folder == DEFAULT_FOLDER else f" --dir {shlex.quote(restore_urls(str(folder)))}"


def as_told(text: str) -> str:
    """The lines as they may be shown: no password in a URL, a folder in S3 by its URL, and nothing that controls a terminal."""
    return escaped(without_passwords(restore_urls(text)), keep="\n\t")


_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys: C0 and C1, ends of lines and paragraphs, directions; surrogates, which have no encoding."""


def escaped(text: str, keep: str = "") -> str:
    """Return the text with the characters that control a terminal, but for those in `keep`, as JSON escapes them."""
    return _CONTROLS.sub(
        lambda found: found[0] if found[0] in keep else f"\\u{ord(found[0]):04x}", text
    )


def _with_texts_escaped(value: Any) -> Any:
    """An answer with its texts escaped; names stay, as two may be escaped alike."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, list):
        return [_with_texts_escaped(one) for one in value]
    return (
        {name: _with_texts_escaped(one) for name, one in value.items()}
        if isinstance(value, dict)
        else value
    )


class _Told(logging.Formatter):
    """What warnings look like where nobody has set up logging."""

    def format(self, record: logging.LogRecord) -> str:
        """The message as it may be shown."""
        return as_told(super().format(record))


@contextmanager
def _ended_alike() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: what is open is closed, and what was begun is taken back."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _usage_mistake(error: click.UsageError) -> str:
    """A mistake on the command line as `PLACE: rule, but got value. remedy`."""
    help_hint = "See --help."
    if isinstance(error, click.NoSuchOption):
        remedy = (
            f"Did you mean {', '.join(error.possibilities)}?" if error.possibilities else help_hint
        )
        return f"{error.option_name}: must be an option of this command, but got an unknown one. {remedy}"
    place = (
        error.param.opts[0]
        if isinstance(error, click.BadParameter) and error.param
        else "command line"
    )
    if isinstance(error, click.MissingParameter):
        return f"{place}: must be given, but got nothing. {help_hint}"
    return f"{place}: must follow the usage, but got: {error.message.rstrip('.')}. {help_hint}"
