"""`python -m recsys.tune`, which searches for the best model on a data set."""

import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recsys.command_line.options import common_options, config_option, data_option, set_option
from recsys.command_line.results import dir_flag, displayed, print_result
from recsys.command_line.run import FAILED, INTERRUPTED, run_command
from recsys.command_line.settings import naming_data, read_config
from recsys.console.verbosity import note, progress
from recsys.errors import InputError, naming

if TYPE_CHECKING:
    from recsys.config.schema import Config
    from recsys.search.plan import Plan
    from recsys.search.record.study_folder import StudyFolder
    from recsys.search.session import Result

_CONFIG_PATHS = {
    "--trials": "study.n_trials",
    "--max-epochs": "training.max_epochs",
    "--time-budget": "study.time_budget",
    "--cpu": "resources.cpu",
    "--gpu": "resources.gpu",
    "--concurrent": "study.max_concurrent",
}
_FLAGS = {"study": "--name", "space_file": "--space", "resume": "--resume"}
"""Flag of each argument that an error may name."""


@click.command(help="Search for the best model on a data set.")
@click.option(
    "--space",
    "space_file",
    type=Path,
    metavar="FILE",
    help="Search space file (YAML).  [default with --resume: that of the study]",
)
@config_option
@data_option
@click.option(
    "--name", metavar="STUDY", help="Name of the study.  [default: <space file>-<UTC time>]"
)
@click.option("--trials", metavar="N", help="Number of trials (study.n_trials).")
@click.option("--max-epochs", metavar="N", help="Maximum epochs per trial (training.max_epochs).")
@click.option(
    "--time-budget",
    metavar="TIME",
    help="End the search after this time, such as 10m (study.time_budget).",
)
@click.option("--cpu", metavar="X", help="CPUs per trial (resources.cpu).")
@click.option("--gpu", metavar="X", help="GPUs per trial (resources.gpu).")
@click.option("--concurrent", metavar="N", help="Maximum trials at a time (study.max_concurrent).")
@set_option
@click.option("--resume", is_flag=True, help="Resume the study named by --name.")
@click.option(
    "--resume-auto", is_flag=True, help="Like --resume if the study exists; otherwise start it."
)
@click.option("--warm-start", metavar="STUDY", help="Start with the best configs of another study.")
@click.option(
    "--dry-run", is_flag=True, help="Check everything and print the plan, but do not search."
)
@common_options
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
    """Search, print, and return the exit code."""
    began = time.monotonic()
    _check_resume(name, resume=resume, resume_auto=resume_auto, warm_start=warm_start)
    from recsys.search.record.study_folder import StudyFolder

    study = StudyFolder.find(folder, name or _default_name(space_file))
    resume = resume or (resume_auto and study.exists())
    given = _with_paths(flags)
    typed = {path: flag for path, (flag, text) in given.items() if text is not None}
    with _suggesting_to_resume(study, folder), naming(typed), naming_data(data):
        base = study.config() if resume and config_file is None else config_file
        config, paths = read_config(base, data, settings, given)
        plan = _make_plan(
            study, folder, config, paths, space=space_file, warm_start=warm_start, resume=resume
        )
        if dry_run:
            return _print_plan(plan, as_json=as_json)
        from recsys.search import session
        from recsys.search.texts import opening_text

        # Printed before the search: a process that is killed prints nothing afterwards.
        hint = f"If the search ends early, {_resuming(study, folder)}"
        opening = displayed(f"{opening_text(plan)}\n{hint}")
        result = session.run(plan, lambda: note(opening))
    return _print_outcome(plan, result, time.monotonic() - began, as_json=as_json)


def _print_plan(plan: "Plan", *, as_json: bool) -> int:
    from recsys.search.plan import describe_plan
    from recsys.search.texts import plan_text

    print_result(describe_plan(plan), as_json, plan_text)
    return 0


def _print_outcome(plan: "Plan", result: "Result", seconds: float, *, as_json: bool) -> int:
    """Print the result of a search, and return the exit code."""
    from recsys.search.texts import result_text

    answer = {**result.answer, "total_seconds": seconds}
    text = partial(result_text, plan, result.summaries, dir_flag=dir_flag(plan.folder))
    print_result(answer, as_json, text)
    if result.interrupted:
        _print_interrupted(plan.study, plan.folder)
        return INTERRUPTED
    if answer["best"] is None:
        missing = f"No trial of {plan.study.name} has a value"
        print(f"{missing}. See the errors above or in MLflow.", file=sys.stderr)
        return FAILED
    return 0


def _default_name(space_file: Path | None) -> str:
    stem = space_file.stem if space_file else "study"
    return f"{stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def _check_resume(
    name: str | None, *, resume: bool, resume_auto: bool, warm_start: str | None
) -> None:
    if warm_start is not None and resume:
        raise InputError(
            "--warm-start",
            "must start a new study",
            f"{warm_start} with --resume",
            "Leave it out, or choose another --name.",
        )
    if name is None and (resume or resume_auto):
        flag = "--resume" if resume else "--resume-auto"
        raise InputError("--name", f"must be given with {flag}", "nothing", "Name the study.")


def _with_paths(flags: Mapping[str, str | None]) -> dict[str, tuple[str, str | None]]:
    """Return config path -> (flag, its text or None)."""
    return {
        path: (flag, flags[flag.removeprefix("--").replace("-", "_")])
        for flag, path in _CONFIG_PATHS.items()
    }


def _make_plan(
    study: "StudyFolder",
    folder: Path,
    config: "Config",
    paths: set[str],
    *,
    space: Path | None,
    warm_start: str | None,
    resume: bool,
) -> "Plan":
    """Prepare the data, join the cluster, and check everything before the search."""
    from recsys.data.preprocessing import pipeline
    from recsys.search.choose_space import add_warm_starts, choose_space
    from recsys.search.record.study_folder import StudyFolder
    from recsys.tracking.uri import require_tracking_uri

    chosen, paths = choose_space(study, space, config, paths, resume=resume)
    if warm_start and not resume:
        with naming({"study": "--warm-start"}):
            source = StudyFolder.find(folder, warm_start)
            chosen = add_warm_starts(chosen, source, config.study.storage)
    require_tracking_uri(config, folder)
    processed = pipeline.prepare(config, folder, _join)
    with progress("Starting Ray"), ThreadPoolExecutor(1) as importer:
        # The import of MLflow and torch and the start of Ray take seconds each: side by side.
        importing = importer.submit(import_module, "recsys.search.session")
        _join(config)
        importing.result()
    from recsys.search.plan import make_plan

    return make_plan(study, folder, config, chosen, processed, fixed_paths=paths, resume=resume)


def _join(config: "Config") -> None:
    """Join the cluster. Ray, which takes seconds to import, is imported no earlier."""
    from recsys.cluster.resources import join

    join(config)


@contextmanager
def _suggesting_to_resume(study: "StudyFolder", folder: Path) -> Iterator[None]:
    """Add the command that resumes the study to whatever ends this one."""
    try:
        yield
    except KeyboardInterrupt:
        _print_interrupted(study, folder)
        raise
    except Exception as error:
        if study.exists():
            error.add_note(_kept(study, folder))
        raise


def _print_interrupted(study: "StudyFolder", folder: Path) -> None:
    if study.exists():
        print(f"Interrupted. {_kept(study, folder)}", file=sys.stderr)
    else:
        print("Interrupted before the search began; nothing was stored.", file=sys.stderr)


def _kept(study: "StudyFolder", folder: Path) -> str:
    return f"The study is stored; {_resuming(study, folder)}"


def _resuming(study: "StudyFolder", folder: Path) -> str:
    command = f"python -m recsys.tune --name {study.name} --resume{dir_flag(folder)}"
    return f"resume it with: {command}"


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(tune, argv, _FLAGS)


if __name__ == "__main__":
    sys.exit(main())
