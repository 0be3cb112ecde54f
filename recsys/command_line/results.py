"""Results of commands, printed once on standard output.

Everything else, such as progress, logs and the prints of workers, goes to standard error.
"""

import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from recsys.command_line.options import DEFAULT_FOLDER
from recsys.console.streams import result_stream
from recsys.storage.credentials import without_passwords
from recsys.storage.s3 import restore_urls

PLAIN_WIDTH = 200
"""Characters of a line if standard output is not a terminal."""
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that control a terminal: C0 and C1, ends of lines and paragraphs, directions of text.
Surrogates too, which have no encoding."""


def print_result(
    answer: Mapping[str, Any],
    as_json: bool,
    describe: Callable[[Mapping[str, Any]], RenderableType],
) -> None:
    """Print the result of a command on standard output: one JSON object, or `describe(answer)`.

    Characters that control a terminal are escaped; a reader of the JSON gets the same values.

    Raises:
        OSError: naming standard output, if it cannot be written.
    """
    stream = result_stream()
    text = escaped(restore_urls(json.dumps(answer, ensure_ascii=False, allow_nan=not as_json)))
    try:
        if as_json:
            print(text, file=stream, flush=True)
        else:
            width = None if stream.isatty() else PLAIN_WIDTH
            console = Console(
                file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True
            )
            console.print(describe(_with_texts_escaped(json.loads(text))))
    except OSError as error:
        raise OSError(error.errno, error.strerror, "/dev/stdout") from None


def dir_flag(folder: Path) -> str:
    """Return the `--dir` of a suggested command, which is empty for the default folder."""
    return "" if folder == DEFAULT_FOLDER else f" --dir {shlex.quote(restore_urls(str(folder)))}"


def displayed(text: str) -> str:
    """Return lines fit for display.

    URLs have no passwords, folders in S3 are named by their URL, and no character controls the
    terminal.
    """
    return escaped(without_passwords(restore_urls(text)), keep="\n\t")


def escaped(text: str, keep: str = "") -> str:
    """Escape the characters that control a terminal, except `keep`, as JSON does."""
    return _CONTROLS.sub(
        lambda found: found[0] if found[0] in keep else f"\\u{ord(found[0]):04x}", text
    )


def _with_texts_escaped(value: Any) -> Any:
    """Return an answer with its texts escaped, except names: two might be escaped alike."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, list):
        return [_with_texts_escaped(item) for item in value]
    if isinstance(value, dict):
        return {name: _with_texts_escaped(item) for name, item in value.items()}
    return value
