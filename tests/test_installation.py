"""Commands that install: one version of uv, a chosen build of torch, and pip in place of uv."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLUSTERS = [ROOT / "cluster.yaml", ROOT / "configs/clusters/on_premise.yaml"]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]

# A Python whose virtual environment has a pip that succeeds and a uv that succeeds or fails. Both
# record the arguments of their installs; pip has the settings in the file `settings`.
PYTHON = """#!/bin/sh
mkdir -p .venv/bin
printf '#!/bin/sh\\ntest "$3" = config && exec cat settings\\necho "$@" >> installs\\n' \
  > .venv/bin/python
printf '#!/bin/sh\\necho uv "$@" >> installs\\nexit {uv_exit_code}\\n' > .venv/bin/uv
chmod +x .venv/bin/python .venv/bin/uv
"""


def make(
    folder: Path, *, uv_exit_code: int, torch_backend: str | None = None, settings: str = ""
) -> tuple[int, list[str], str]:
    """Run `make .venv/installed`; return its exit code, its installs and its standard error."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / "settings").write_text(settings, encoding="utf-8")
    python = folder / "python"
    python.write_text(PYTHON.format(uv_exit_code=uv_exit_code), encoding="utf-8")
    python.chmod(0o755)
    variables = [
        f"PYTHON={python}",
        *([] if torch_backend is None else [f"TORCH_BACKEND={torch_backend}"]),
    ]
    surroundings = {
        name: value
        for name, value in os.environ.items()
        if name not in {"MAKEFLAGS", "TORCH_BACKEND"}
    }
    made = subprocess.run(
        ["make", ".venv/installed", *variables],
        cwd=folder,
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode in {0, 2}
    assert (folder / ".venv/installed").exists() == (made.returncode == 0)
    return (
        made.returncode,
        (folder / "installs").read_text(encoding="utf-8").splitlines(),
        made.stderr,
    )


UV = "-m pip install --quiet --constraint constraints.txt uv"
BY_UV = "uv pip install --quiet --python .venv/bin/python --constraint constraints.txt"
BY_PIP = "-m pip install --quiet --constraint constraints.txt"
TORCH_BY_UV, TORCH_BY_PIP = f"{BY_UV} --torch-backend {{}} torch", f"{BY_PIP} torch"
PROJECT_BY_UV, PROJECT_BY_PIP = f"{BY_UV} --editable .[dev]", f"{BY_PIP} --editable .[dev]"


@pytest.mark.parametrize(
    ("asked", "backend"), [(None, "cpu"), ("auto", "auto"), ("cu130", "cu130")]
)
def test_make_installs_the_build_of_torch_before_the_project(
    tmp_path: Path, asked: str | None, backend: str
) -> None:
    code, installs, errors = make(tmp_path, uv_exit_code=0, torch_backend=asked)
    assert (code, installs) == (0, [UV, TORCH_BY_UV.format(backend), PROJECT_BY_UV])
    assert "CUDA" not in errors


def test_make_warns_if_pip_installs_torch(tmp_path: Path) -> None:
    code, installs, errors = make(tmp_path, uv_exit_code=2)
    assert (code, installs) == (
        0,
        [UV, TORCH_BY_UV.format("cpu"), TORCH_BY_PIP, PROJECT_BY_UV, PROJECT_BY_PIP],
    )
    assert (
        "pip installs the build of the package index, on Linux several gigabytes for CUDA" in errors
    )


@pytest.mark.parametrize(
    ("settings", "project"),
    [
        ("global.index-url='https://mirror.example.com/simple'\n", PROJECT_BY_PIP),
        (":env:.index-url='https://mirror.example.com/simple'\n", PROJECT_BY_PIP),
        ("global.timeout='60'\n", PROJECT_BY_UV),
    ],
)
def test_pip_installs_from_an_index_that_its_settings_name(
    tmp_path: Path, settings: str, project: str
) -> None:
    _, installs, _ = make(tmp_path, uv_exit_code=0, settings=settings)
    assert installs[2:] == [project]


def test_make_fails_without_the_requested_build(tmp_path: Path) -> None:
    code, installs, _ = make(tmp_path, uv_exit_code=2, torch_backend="cu126")
    assert (code, installs) == (2, [UV, TORCH_BY_UV.format("cu126")])


def test_uv_has_one_version() -> None:
    (version,) = re.findall(
        r"^uv==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    for file in [ROOT / "Dockerfile", *CLUSTERS]:
        assert set(re.findall(r"\buv==([\d.]+)", file.read_text(encoding="utf-8"))) == {version}, (
            file.name
        )


@pytest.mark.parametrize(
    "file", [ROOT / "Dockerfile", *CLUSTERS, *GUIDES], ids=lambda file: file.name
)
def test_installs_by_uv_choose_the_build_of_torch(file: Path) -> None:
    """Installs by pip add uv, or an extra in an environment that has torch."""
    by_uv = re.findall(r"uv pip install [^`\n]+", file.read_text(encoding="utf-8"))
    assert by_uv
    for command in by_uv:
        assert re.search(
            r'--torch-backend (cpu|auto|cu130|"\$TORCH_BACKEND") -c constraints\.txt -e ', command
        ), command
