import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from rich.text import Text

from recsys import recommend, train, tune
from recsys.command_line.options import DEFAULT_FOLDER, traceback_option
from recsys.command_line.results import dir_flag, print_result
from recsys.command_line.run import print_error, run_command
from recsys.command_line.settings import read_config, read_storage
from recsys.config.schema import Config
from recsys.data.preprocessing.first_pass import Summary, merge
from recsys.errors import Argument, DivergenceError, InputError, naming

RECSYS = Path(sys.modules["recsys"].__file__ or "").parent

SCRIPT = '''
"""A command whose libraries, children and own prints all write to standard output."""
import subprocess, sys
import click
from recsys.command_line import options, results, run

@click.command()
@options.json_option
def chatty(as_json: bool) -> int:
    print("printed by a library")
    subprocess.run([sys.executable, "-c", "print('printed by a child')"], check=True)
    results.print_result({"name": "é"}, as_json, lambda answer: f"name is {answer['name']}")
    print("printed afterwards")
    return 0

code = run.run_command(chatty, None)
print("printed by a thread that is still running")
sys.exit(code)
'''


def run_callback(callback: Callable[[], object]) -> int:
    return run_command(click.Command("made-up", callback=callback), [])


@pytest.fixture
def read() -> click.Command:
    """A command that reads its config, as every command does first."""

    @click.command()
    @click.option("--space", required=True)
    @click.option("-k", type=click.IntRange(min=1), default=1)
    @click.option("--all-users", is_flag=True)
    @click.option("--set", "settings", multiple=True)
    @traceback_option
    def read(*, space: str, k: int, all_users: bool, settings: tuple[str, ...]) -> None:
        read_config(None, None, settings)

    return read


def test_the_return_value_is_the_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_callback(lambda: None) == 0
    assert run_callback(lambda: 0) == 0
    assert run_callback(lambda: 130) == 130
    assert capfd.readouterr() == ("", "")


def test_a_users_mistake_is_one_line_and_2(
    read: click.Command, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command(read, ["--space", "x", "--set", "model.embeding_dim=8"]) == 2
    message = (
        "--set: model.embeding_dim: must be a config path, but got an unknown name. Did you mean "
        "model.embedding_dim?"
    )
    assert capfd.readouterr() == ("", f"error: {message}\n")


def test_several_mistakes_are_a_headline_and_a_line_each(
    read: click.Command, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        run_command(
            read, ["--space", "x", "--set", "model.embedding_dim=0", "--set", "model.dropout=1"]
        )
        == 2
    )
    assert capfd.readouterr().err.splitlines() == [
        "error: --set: 2 mistakes",
        "  model.embedding_dim: must be at least 1, but got 0. The default is 16.",
        "  model.dropout: must be less than 1, but got 1. The default is 0.0.",
    ]


def test_a_missing_file_is_a_users_mistake(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    assert run_callback(lambda: read_config(file, None, ())) == 2
    assert (
        capfd.readouterr().err
        == f"error: {file}: must be a YAML file, but got no such file. Check the path.\n"
    )


BUGS = [
    "json.loads('{')",
    "list(zip([1], [1, 2], strict=True))",
    "one, two = (1, 2, 3)",
    "[1, 2].remove(3)",
    "np.arange(6).reshape(4, 2)",
    "np.arange(3) + np.arange(4)",
    "np.concatenate([])",
    "int('x')",
    "open('no/such/file')",
    "1.0 / 0",
    *(
        f"raise {kind}('x')"
        for kind in (
            "ValueError",
            "FileNotFoundError",
            "ConnectionError",
            "FloatingPointError",
            "KeyError",
        )
    ),
    *(
        f"raise {kind}('x')"
        for kind in (
            "IndexError",
            "TypeError",
            "RuntimeError",
            "AttributeError",
            "AssertionError",
            "OSError",
        )
    ),
]


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_in_recsys_is_a_traceback_and_1(bug: str, capfd: pytest.CaptureFixture[str]) -> None:
    # C code has no frame, so the innermost frame is in recsys, some calls below a public function.
    def fail() -> Iterator[Summary]:
        exec(compile(bug, str(RECSYS / "data" / "made_up.py"), "exec"), {"json": json, "np": np})
        yield Summary()

    assert run_callback(lambda: merge(fail())) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("Traceback (most recent call last):\n")
    assert "made_up.py" in err
    assert "\nerror: " not in err


@pytest.mark.parametrize("ask", ["flag", "variable"])
def test_the_traceback_of_a_mistake_is_shown_on_request(
    ask: str,
    read: click.Command,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if ask == "variable":
        monkeypatch.setenv("RECSYS_TRACEBACK", "1")
    assert (
        run_command(
            read, ["--space", "x", "--set", "x", *(["--traceback"] if ask == "flag" else [])]
        )
        == 2
    )
    err = capfd.readouterr().err
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith(
        "\nerror: --set: must be PATH=VALUE, but got 'x'. Write it as training.batch_size=512.\n"
    )


def test_the_traceback_of_a_mistake_in_the_usage_is_shown_on_request(
    read: click.Command, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command(read, ["--traceback"]) == 2
    err = capfd.readouterr().err
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith("\nerror: --space: must be given, but got nothing. See --help.\n")


def test_an_input_error_has_its_parts_and_survives_pickling() -> None:
    for error in (
        InputError("study.n_trials", "must be at least 1", 0, "Raise it."),
        InputError("a.csv", "must hold rows", found="is empty", remedy="Add some."),
        InputError.listing(
            "c.yaml", ["x: must be 1, but got 2. Set it.", "y: must be 3, but got 4. Set it."]
        ),
        DivergenceError("train_loss", "must be finite", float("inf"), "Lower it."),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
    error = InputError("study.n_trials", "must be at least 1", 0, "Raise it.")
    assert (error.place, error.rule, error.value, error.remedy) == (
        "study.n_trials",
        "must be at least 1",
        0,
        "Raise it.",
    )
    assert str(error) == "study.n_trials: must be at least 1, but got 0. Raise it."
    assert str(InputError("a.csv", "must hold rows", found="is empty", remedy="Add some.")) == (
        "a.csv: must hold rows, but is empty. Add some."
    )


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        (Argument("k"), "-k"),
        (Argument("folder"), "--dir"),
        (Argument("item"), "item"),
        # a file, by its path or its name
        (Path("k"), "k"),
        ("k", "k"),
    ],
)
def test_an_argument_is_shown_as_the_flag_that_sets_it(
    place: object, shown: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise InputError(place, "must be at least 1", 0, "Raise it.")

    assert run_command(click.Command("made-up", callback=fail), [], {"k": "-k"}) == 2
    assert capfd.readouterr().err == f"error: {shown}: must be at least 1, but got 0. Raise it.\n"


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (tune.tune, [*tune._CONFIG_PATHS]),
        (train.train, train._FLAGS.values()),
        (recommend.recommend, recommend._FLAGS.values()),
    ],
)
def test_the_flags_of_a_command_are_its_options(
    command: click.Command, flags: Iterable[str]
) -> None:
    options = {flag for option in command.params for flag in option.opts}
    assert {*flags, "--dir"} <= options


def test_the_innermost_name_of_a_place_counts() -> None:
    with (
        pytest.raises(InputError) as caught,
        naming({"study": "--name"}),
        naming({"study": "--warm-start"}),
    ):
        raise InputError(Argument("study"), "must be short", "long", "Rename it.")
    assert caught.value.place == pickle.loads(pickle.dumps(caught.value)).place == "--warm-start"


def test_the_notes_of_a_fault_follow_it(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(error: Exception) -> list[str]:
        error.add_note("resume it with: x")
        print_error(error)
        return capfd.readouterr().err.splitlines()

    assert fail(RuntimeError("y"))[-2:] == ["RuntimeError: y", "resume it with: x"]
    assert fail(OSError(28, "No space left on device", "/nowhere/x.db"))[1:] == [
        "resume it with: x"
    ]
    assert len(fail(InputError("a", "must be b", "c", "Set it."))) == 1


def raise_no_room() -> None:
    raise OSError(28, "No space left on device", "/nowhere/x.db")


def raise_no_room_elsewhere() -> None:
    raise InputError(
        "tracking.uri", "must be reachable", "y (database or disk is full)", "Free some."
    )


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        (
            raise_no_room,
            "/nowhere/x.db: must have room to be written, but got [Errno 28] No space left on "
            "device: '/nowhere/x.db'. "
            "Free some.",
        ),
        (
            raise_no_room_elsewhere,
            "tracking.uri: must be reachable, but got y (database or disk is full). Free some.",
        ),
    ],
)
def test_a_full_disk_is_no_mistake_and_one_line(
    callback: Callable[[], object], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_callback(callback) == 1
    assert capfd.readouterr().err == f"error: {expected}\n"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, click.Abort])
def test_an_interrupt_is_130(interrupt: type[BaseException]) -> None:
    def stop() -> None:
        raise interrupt

    assert run_callback(stop) == 130


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            ["--spac", "x"],
            "--spac: must be an option of this command, but got an unknown one. Did you mean "
            "--space?",
        ),
        (
            ["--zzzzzzz"],
            "--zzzzzzz: must be an option of this command, but got an unknown one. See --help.",
        ),
        ([], "--space: must be given, but got nothing. See --help."),
        (
            ["--space"],
            "command line: must follow the usage, but got: Option '--space' requires an argument. "
            "See --help.",
        ),
        (
            ["--space", "x", "y"],
            "command line: must follow the usage, but got: Got unexpected extra argument (y). See "
            "--help.",
        ),
        (
            ["--space", "x", "-k", "0"],
            "-k: must follow the usage, but got: 0 is not in the range x>=1. See --help.",
        ),
        (
            ["--space", "x", "--all-users=3"],
            "command line: must follow the usage, but got: Option '--all-users' does not take a "
            "value. See --help.",
        ),
    ],
)
def test_a_mistake_on_the_command_line(
    read: click.Command, argv: list[str], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command(read, argv) == 2
    assert capfd.readouterr() == ("", f"error: {expected}\n")


def test_help_is_on_standard_output(read: click.Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(read, ["--help"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("Usage: python -m recsys.read [OPTIONS]\n")
    assert err == ""


@pytest.mark.parametrize(("argv", "result"), [([], "name is é"), (["--json"], '{"name": "é"}')])
def test_standard_output_holds_the_result_alone(
    argv: list[str], result: str, tmp_path: Path
) -> None:
    script = tmp_path / "chatty.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-X", "utf8", str(script), *argv]
    done = subprocess.run(command, check=False, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [result]
    assert sorted(done.stderr.splitlines()) == [
        "printed afterwards",
        "printed by a child",
        "printed by a library",
        "printed by a thread that is still running",
    ]


def test_standard_output_is_restored(capfd: pytest.CaptureFixture[str]) -> None:
    run_callback(lambda: os.write(1, b"during\n") and None)
    os.write(1, b"after\n")
    assert capfd.readouterr() == ("after\n", "during\n")


def test_a_result_is_neither_wrapped_nor_coloured(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(
        {"word": "[bold]" + "x" * 300}, as_json=False, describe=lambda answer: Text(answer["word"])
    )
    assert capsys.readouterr().out == "[bold]" + "x" * 300 + "\n"


def test_json_has_no_numbers_that_json_does_not_know() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_result({"value": float("nan")}, as_json=True, describe=str)


def test_read_config_returns_the_paths_that_were_set(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("model: {name: gmf}\ntraining: {max_epochs: 2}")
    flags = {"training.max_epochs": ("--max-epochs", "7"), "study.n_trials": ("--trials", None)}
    config, decided = read_config(file, "no", ["training.learning_rate=1e-4"], flags)
    assert decided == {"data.source", "training.max_epochs", "training.learning_rate"}
    assert (config.data.source, config.training.max_epochs, config.training.learning_rate) == (
        "no",
        7,
        1e-4,
    )
    assert (config.model.name, config.study.n_trials) == ("gmf", None)


@pytest.mark.parametrize(("text", "shown"), [("many", "'many'"), ("1.5", "1.5")])
def test_a_flag_is_named_by_its_mistake(text: str, shown: str) -> None:
    with pytest.raises(ValueError, match="--trials") as caught:
        read_config(None, None, [], {"study.n_trials": ("--trials", text)})
    assert str(caught.value) == (
        f"--trials: study.n_trials: must be a whole number, but got {shown}. The default is null."
    )


def test_the_data_flag_takes_the_place_of_a_given_split(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data: {files: {train: a, test: b}, positive_threshold: 3.0}")
    config, decided = read_config(file, "ml-1m", ["data.files.test=c"])
    assert (config.data.source, config.data.files) == ("ml-1m", None)
    assert config.data.positive_threshold == 3.0
    assert decided == {"data.source", "data.files.test"}


def test_a_path_to_data_is_text_whatever_it_looks_like() -> None:
    config, decided = read_config(Config(), "2024", [])
    assert (config.data.source, decided) == ("2024", {"data.source"})


@pytest.mark.parametrize(
    ("folder", "expected"),
    [(DEFAULT_FOLDER, ""), (Path("/x/y"), " --dir /x/y"), (Path("my runs"), " --dir 'my runs'")],
)
def test_suggested_commands_find_the_same_folder(folder: Path, expected: str) -> None:
    assert dir_flag(folder) == expected


def test_a_result_is_exact_but_for_folders_in_s3(capfd: pytest.CaptureFixture[str]) -> None:
    answer = {
        "title": "ftp://me:you@home",
        "model": "/tmp/recsys-x1/s3:/bucket/p/models/m",
        "score": 0.1 + 0.2,
    }
    expected = {"title": "ftp://me:you@home", "model": "s3://bucket/p/models/m", "score": 0.1 + 0.2}
    print_result(answer, True, lambda _: Text())
    assert json.loads(capfd.readouterr().out) == expected
    print_result(answer, False, lambda shown: Text(f"{shown['title']} {shown['model']}"))
    assert capfd.readouterr().out == "ftp://me:you@home s3://bucket/p/models/m\n"


def test_no_password_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    url = "postgresql://search:pass@host/runs"
    assert print_error(RuntimeError(f"no answer from {url}")) == 1
    err = capfd.readouterr().err
    assert err.endswith("RuntimeError: no answer from postgresql://search@host/runs\n")
    assert dir_flag(Path("/tmp/recsys-x1/s3:/bucket/p")) == " --dir s3://bucket/p"


def test_no_output_controls_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert print_error(RuntimeError("a\tb\nc \x1b[31m \x07 \x9b \ud800 ü \u202e")) == 1
    assert capfd.readouterr().err.endswith(
        "RuntimeError: a\tb\nc \\u001b[31m \\u0007 \\u009b \\ud800 ü \\u202e\n"
    )
    print_result({"path": "a\nb\x1b"}, False, lambda shown: Text(shown["path"]))
    assert capfd.readouterr().out == "a\\u000ab\\u001b\n"


def test_the_storage_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [
        "study.storage=mysql://h/a",
        "training.loss=squared",
        "study.storage='mysql://u:pass@h/b'",
    ]
    assert read_storage(both) == "mysql://u@h/b"
    assert read_storage(["training.loss=squared"]) is None
    monkeypatch.setenv("RECSYS_STUDY_STORAGE", "mysql://u@h/c")
    assert read_storage([]) == "mysql://u@h/c"
    assert read_storage(both) == "mysql://u@h/b"


def test_a_mistake_shows_no_password(
    capfd: pytest.CaptureFixture[str], read: click.Command
) -> None:
    url = "http://bob:it's a very long M4RK that is cut off in the middle, after sixty characters@h"
    for setting in (
        f"tracking.uri=[{url!r}]",
        f"tracking.uri:{url}",
        f"tracking.url={url}",
        f"data.files={url!r}",
    ):
        assert run_command(read, ["--space", "x", "--set", setting]) == 2
        err = capfd.readouterr().err
        assert err.startswith("error: ")
        assert "M4RK" not in err
        assert "very" not in err
