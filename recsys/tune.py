"""`python -m recsys.tune`: search for the best model on a data set."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recsys import command_line
from recsys.console.verbosity import note
from recsys.errors import InputError

if TYPE_CHECKING:
    from recsys.config.schema import Config

_FLAGS = {
    "trials": "study.n_trials",
    "max_epochs": "training.max_epochs",
    "time_budget": "study.time_budget",
    "cpu": "resources.cpu",
    "gpu": "resources.gpu",
    "concurrent": "study.max_concurrent",
}


@click.command(help="Search for the best model on a data set.")
@click.option(
    "--space",
    "space_file",
    type=Path,
    metavar="FILE",
    help="Search space (YAML); with --resume the study's own.",
)
@command_line.config_option
@command_line.data_option
@click.option(
    "--name", metavar="STUDY", help="Name of the study.  [default: <space file>-<UTC time>]"
)
@click.option("--trials", metavar="N", help="Trials of the study (study.n_trials).")
@click.option("--max-epochs", metavar="N", help="Epochs of a trial at most (training.max_epochs).")
@click.option(
    "--time-budget",
    metavar="TIME",
    help="End the search after this time, such as 10m (study.time_budget).",
)
@click.option("--cpu", metavar="X", help="CPUs of a trial (resources.cpu).")
@click.option("--gpu", metavar="X", help="GPUs of a trial (resources.gpu).")
@click.option("--concurrent", metavar="N", help="Trials at the same time (study.max_concurrent).")
@command_line.set_option
@command_line.dir_option
@click.option("--resume", is_flag=True, help="Go on with the study --name.")
@click.option("--resume-auto", is_flag=True, help="Go on with the study --name, or start it.")
@click.option("--warm-start", metavar="STUDY", help="Try the best configs of another study first.")
@click.option(
    "--dry-run", is_flag=True, help="Check everything, show what would run, train nothing."
)
@command_line.verbose_option
@command_line.quiet_option
@command_line.traceback_option
@command_line.json_option
def tune(
    *,
    space_file: Path | None,
    config_file: Path | None,
    data: str | None,
    name: str | None,
    settings: tuple[str, ...],
    folder: Path,
    resume: bool,
    resume_auto: bool,
    warm_start: str | None,
    dry_run: bool,
    as_json: bool,
    **flags: str | None,
) -> int:
    """Parse, search, print; returns the exit code."""
    began = time.monotonic()
    given = {path: (f"--{flag.replace('_', '-')}", flags[flag]) for flag, path in _FLAGS.items()}
    from recsys.data.preprocessing import pipeline
    from recsys.search.record import study_files
    from recsys.tracking.places import require_place

    if warm_start is not None and resume:
        raise InputError(
            "--warm-start",
            "must begin a new study",
            f"{warm_start} with --resume",
            "Leave it out, or choose another --name.",
        )
    if name is None and (resume or resume_auto):
        flag = "--resume" if resume else "--resume-auto"
        raise InputError(
            "--name", f"must be given with {flag}", "nothing", "Name the study to go on with."
        )
    name = name or f"{space_file.stem if space_file else 'study'}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    study = study_files.find_study(folder, name)
    goes_on = resume or (resume_auto and study.exists())
    with _told_how_to_go_on(study, folder):
        base = study_files.started_config(study) if goes_on and config_file is None else config_file
        config, decided = command_line.read_config(base, data, settings, given)
        space, decided = study_files.read_start_space(
            study, space_file, config, decided, goes_on=goes_on
        )
        if warm_start and not goes_on:
            space = study_files.with_best_of(
                space, study_files.find_study(folder, warm_start), config.study.storage
            )
        require_place(config, folder)
        processed = pipeline.prepare(config, folder, _join)
        with ThreadPoolExecutor(1) as importer:
            # MLflow and torch take seconds to import, and Ray seconds to start: side by side.
            importing = importer.submit(import_module, "recsys.search.session")
            _join(config)
            importing.result()
        from recsys.search import session
        from recsys.search.texts import plan_text, result_text

        plan = session.make_plan(
            config, space, name, folder, processed, decided=decided, goes_on=goes_on
        )
        if dry_run:
            command_line.print_result(session.describe_plan(plan), as_json, plan_text)
            return 0
        result = session.run(plan, partial(_print_what_goes_on, study, folder))
    answer = {**result.answer, "total_seconds": time.monotonic() - began}
    dir_flag = command_line.dir_flag(folder)
    command_line.print_result(
        answer, as_json, partial(result_text, plan, result.summaries, dir_flag=dir_flag)
    )
    if result.interrupted:
        _print_interrupted(study, folder)
        return command_line.INTERRUPTED
    if answer["best"] is None:
        print(
            f"No trial of {name} reached a value; the errors stand above and in MLflow.",
            file=sys.stderr,
        )
        return 1
    return 0


def _join(config: "Config") -> None:
    """Import what joins the cluster when it is joined: Ray takes seconds, and a mistake in the data is told before."""
    from recsys.cluster.resources import join

    join(config)


@contextmanager
def _told_how_to_go_on(study: Path, folder: Path) -> Iterator[None]:
    """Print the command that goes on after whatever ends this one, but for a mistake of the user."""
    try:
        yield
    except KeyboardInterrupt:
        _print_interrupted(study, folder)
        raise
    except Exception as error:
        code = command_line.tell(error, folder)
        if code == 1 and study.exists():
            print(_kept(study, folder), file=sys.stderr)
        raise click.exceptions.Exit(code) from error


def _print_interrupted(study: Path, folder: Path) -> None:
    if study.exists():
        told = f"Interrupted. {_kept(study, folder)}"
    else:
        told = "Interrupted before the search began; nothing of it is kept. Start it again."
    print(told, file=sys.stderr)


def _kept(study: Path, folder: Path) -> str:
    return f"What was reported is kept; go on with: {_command_that_goes_on(study, folder)}"


def _print_what_goes_on(study: Path, folder: Path) -> None:
    """Before anything can end the search: who kills it leaves it no time to tell."""
    note(f"Whatever ends this search, it goes on with: {_command_that_goes_on(study, folder)}")


def _command_that_goes_on(study: Path, folder: Path) -> str:
    return f"python -m recsys.tune --name {study.name} --resume{command_line.dir_flag(folder)}"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return command_line.run(tune, argv)


if __name__ == "__main__":
    sys.exit(main())
