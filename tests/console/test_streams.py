"""A command works and prints what it can, even if its standard streams are closed."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import logging, subprocess, sys
import click
from recsys.command_line import options, results, run

@click.command()
@options.json_option
def chatty(as_json: bool) -> int:
    from rich.console import Console

    open("first", "w").write("a file is no stream")
    for _ in range(3):
        print("printed by a library", flush=True)
        print("printed as a note", file=sys.stderr)
        logging.getLogger("recsys").warning("a warning")
        Console(file=sys.stderr).print("a table")
    subprocess.run(["echo", "printed by a child"], check=False)
    results.print_result({"name": "x"}, as_json, lambda answer: f"name is {answer['name']}")
    print("printed afterwards", flush=True)
    open("last", "w").write(open("first").read())
    return 0

sys.exit(run.run_command(chatty, None))
"""

ENDED = "exec 4> >(exec true); wait $!; "
"""Descriptor 4 is a pipe without a reader."""


def run(folder: Path, redirection: str, *flags: str) -> subprocess.CompletedProcess[str]:
    (folder / "chatty.py").write_text(SCRIPT)
    before = ENDED if "&4" in redirection else ""
    command = [
        "bash",
        "-c",
        f'{before}exec "$@" {redirection}',
        "bash",
        sys.executable,
        "chatty.py",
        *flags,
    ]
    return subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(
    "redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">&4", "2>&4", ">&4 2>&4", "2>/dev/full"]
)
def test_the_work_is_done(tmp_path: Path, redirection: str, flags: list[str]) -> None:
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("/dev/full does not exist")
    done = run(tmp_path, redirection, *flags)
    assert done.returncode == 0, done.stderr
    # A file that the command opens does not get the descriptor of a stream.
    assert (
        (tmp_path / "last").read_text() == (tmp_path / "first").read_text() == "a file is no stream"
    )
    gone = ("&-", "&4", "/dev/full")
    keeps_output, keeps_errors = (
        not any(f"{at}{to}" in f" {redirection}" for to in gone) for at in (" >", " 2>")
    )
    assert done.stdout == (
        ({"": "name is x\n", "--json": '{"name": "x"}\n'}["".join(flags)]) if keeps_output else ""
    )
    assert (
        done.stderr.count("printed as a note")
        == done.stderr.count("a warning")
        == (3 if keeps_errors else 0)
    )


@pytest.mark.parametrize("redirection", [">&-", ">&4"])
def test_help_without_a_reader(tmp_path: Path, redirection: str) -> None:
    done = run(tmp_path, redirection, "--help")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("redirection", ["2>&-", "2>&4"])
def test_a_mistake_without_a_reader(tmp_path: Path, redirection: str) -> None:
    assert run(tmp_path, redirection, "--no-such-option").returncode == 2


def test_a_result_on_a_full_disk_is_a_failure(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full does not exist")
    done = run(tmp_path, ">/dev/full", "--json")
    assert done.returncode == 1
    last_line = done.stderr.splitlines()[-1]
    assert last_line == (
        "error: /dev/stdout: must have room to be written, but got [Errno 28] No space left "
        "on device. Free some."
    )
