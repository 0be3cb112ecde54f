"""The versions that a result depends on, as tags of its run."""

import os
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

_GIT_SECONDS = 5.0


def version_tags() -> dict[str, str]:
    """Return the versions that a result depends on, with the git commit of a checkout of recsys."""
    tags = {
        f"version.{name}": version(name) for name in ("recsys", "ray", "torch", "optuna", "mlflow")
    }
    commit = git_commit(Path(__file__).parents[2])
    return tags if commit is None else {**tags, "git_commit": commit}


def git_commit(folder: Path) -> str | None:
    """Return the commit that is checked out in a folder, None if it is no checkout of recsys.

    An installed or copied recsys may be within a repository of another project.
    """
    project = folder / "pyproject.toml"
    if (
        not project.is_file()
        or tomllib.loads(project.read_text(encoding="utf-8")).get("project", {}).get("name")
        != "recsys"
    ):
        return None
    command = ["git", "-C", str(folder), "rev-parse", "--show-toplevel", "HEAD"]
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GIT_DIR", "GIT_WORK_TREE")
    }
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_GIT_SECONDS,
            env=variables,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):  # no git here, or no answer in time
        return None
    if done.returncode != 0:
        return None
    top, commit = done.stdout.splitlines()
    return commit if Path(top).samefile(folder) else None
