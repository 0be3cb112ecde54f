import subprocess
from pathlib import Path

import pytest

from recsys.tracking.versions import git_commit


def git(folder: Path, *argv: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=me", "-c", "user.email=me@home", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit."""
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "begin")
    return tmp_path


def write_project(folder: Path, content: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(content)


def test_the_commit_of_a_checkout(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(repository, '[project]\nname = "recsys"')
    monkeypatch.setenv(
        "GIT_DIR", str(repository / "elsewhere")
    )  # as within a hook of another repository
    commit = git_commit(repository)
    monkeypatch.delenv("GIT_DIR")
    assert commit == git(repository, "rev-parse", "HEAD")


def test_no_commit_of_a_repository_that_the_package_is_installed_in(repository: Path) -> None:
    packages = repository / ".venv" / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    write_project(repository, '[project]\nname = "shop"')
    assert git_commit(packages) is None
    # the folder of the sources, without its own history
    write_project(repository / "vendor", '[project]\nname = "recsys"')
    assert git_commit(repository / "vendor") is None


@pytest.mark.parametrize("content", ['[project]\nname = "shop"', "[tool.poetry]"])
def test_no_commit_of_a_repository_that_the_package_was_copied_to(
    repository: Path, content: str
) -> None:
    write_project(repository, content)
    assert git_commit(repository) is None


def test_no_commit_without_a_repository(tmp_path: Path) -> None:
    write_project(tmp_path, '[project]\nname = "recsys"')
    assert git_commit(tmp_path) is None
