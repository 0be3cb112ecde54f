"""The run of a command from its arguments to its exit code.

The commands call `run_command`. Errors are printed here and nowhere else.
"""

import atexit
import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import click

from recsys.command_line.results import displayed
from recsys.console.streams import open_streams, output_apart
from recsys.console.verbosity import NORMAL, VERBOSE, set_verbosity
from recsys.errors import InputError, naming
from recsys.storage.credentials import hide_passwords_of
from recsys.storage.path_errors import disk_full_line, permission_error

FAILED, MISTAKEN, INTERRUPTED = 1, 2, 130
"""Exit codes: a fault or a bug; a mistake in what the user gave; an interrupt."""
TRACEBACK = "RECSYS_TRACEBACK"
"""Environment variable with the effect of `--traceback`."""
_HINT = "See --help."


def run_command(
    command: click.Command,
    argv: Sequence[str] | None,
    flags: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Run a command and return its exit code.

    Args:
        command: returns its exit code, or None for 0.
        argv: its arguments, or None for those of this process.
        flags: name of an argument, as the place of an `InputError` -> flag of this command.
    """
    _set_up_logging()
    if argv is None:
        open_streams()
        _relax_garbage_collection()
    arguments = sys.argv[1:] if argv is None else list(argv)
    hide_passwords_of([*arguments, *os.environ.values()])
    with_traceback = "--traceback" in arguments or bool(os.environ.get(TRACEBACK))
    context: click.Context | None = None
    try:
        # Standard output is set apart after parsing only: --help belongs there.
        context = command.make_context(f"python -m recsys.{command.name}", arguments)
        with (
            context,
            output_apart(is_whole_process=argv is None),
            _interrupted_by_sigterm(),
            naming({"folder": "--dir", **flags}),
        ):
            return int(command.invoke(context) or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.UsageError as error:
        if with_traceback:
            _print_traceback(error)
        print(displayed(f"error: {_usage_mistake(error)}"), file=sys.stderr)
        return MISTAKEN
    except Exception as error:
        return print_error(error, _given_paths(context), with_traceback=with_traceback)


def _set_up_logging() -> None:
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Formatter())
        logging.lastResort.setLevel(VERBOSE)
    set_verbosity(NORMAL)


def print_error(
    error: Exception,
    paths: Mapping[str, Path] = MappingProxyType({}),
    *,
    with_traceback: bool = False,
) -> int:
    """Print the error that ended a command, and return the exit code.

    An `InputError` and a full disk are one line, and everything else is a traceback. The notes of
    an error that is no mistake of the user follow it. An `OSError` about a path that the user chose
    may come from any library, so it becomes an `InputError` here.

    Args:
        error: the error.
        paths: flag of the command -> path that it set.
        with_traceback: print the traceback of a mistake too.
    """
    mistake = error if isinstance(error, InputError) else permission_error(error, paths)
    if (full := disk_full_line(error, paths.get("--dir"))) is not None:
        line, code = full, FAILED
    elif mistake is not None:
        line, code = str(mistake), MISTAKEN
    else:
        line, code, with_traceback = "", FAILED, True
    if with_traceback:
        _print_traceback(error)
    if line:
        print(displayed(f"error: {line}"), file=sys.stderr)
    if code == FAILED and not with_traceback:  # a traceback ends with the notes
        for note in getattr(error, "__notes__", ()):
            print(displayed(note), file=sys.stderr)
    return code


def _print_traceback(error: Exception) -> None:
    print(displayed("".join(traceback.format_exception(error))), file=sys.stderr, end="")


def _given_paths(context: click.Context | None) -> dict[str, Path]:
    """Return flag -> path for the options of a command that hold a path."""
    if context is None:
        return {}
    options = {option.name: option.opts[0] for option in context.command.params}
    return {
        options[name]: value for name, value in context.params.items() if isinstance(value, Path)
    }


def _relax_garbage_collection() -> None:
    """Make Python collect garbage less often, and not at all as it ends.

    Among the 700,000 objects of torch, Ray and MLflow, collections take a quarter of the time of
    their import, and more than a second after the last line.
    """
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM act as Ctrl-C, so that files are closed and partial work is removed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Formatter(logging.Formatter):
    """Formatter of warnings where logging is not set up."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message fit for display."""
        return displayed(super().format(record))


def _usage_mistake(error: click.UsageError) -> str:
    """Return a mistake on the command line as `PLACE: rule, but got value. remedy`."""
    if isinstance(error, click.NoSuchOption):
        near = error.possibilities
        remedy = f"Did you mean {', '.join(near)}?" if near else _HINT
        rule = "must be an option of this command, but got an unknown one"
        return f"{error.option_name}: {rule}. {remedy}"
    place = "command line"
    if isinstance(error, click.BadParameter) and error.param:
        place = error.param.opts[0]
    if isinstance(error, click.MissingParameter):
        return f"{place}: must be given, but got nothing. {_HINT}"
    return f"{place}: must follow the usage, but got: {error.message.rstrip('.')}. {_HINT}"
