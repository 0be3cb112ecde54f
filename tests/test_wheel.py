"""The wheel: the licences that it states and carries, and its files."""

import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
NOTICE = "recsys/data/ml-latest-small/NOTICE.md"
TERMS = [
    "The user may not state or imply any endorsement from the University of Minnesota "
    "or the GroupLens Research Group.",
    "The user must acknowledge the use of the data set in publications resulting from "
    "the use of the data set (see below",
    "The user may redistribute the data set, including transformations, "
    "so long as it is distributed under these same",
    "without first obtaining permission from a faculty member "
    "of the GroupLens Research Project at the University of Minnesota.",
    'The executable software scripts are provided "as is" '
    "without warranty of any kind, either expressed or implied",
    "Should the program prove defective, "
    "you assume the cost of all necessary servicing, repair or correction.",
    "In no event shall the University of Minnesota, "
    "its affiliates or employees be liable to you for any damages",
    "(including but not limited to loss of data or data being rendered inaccurate).",
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context.",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """Return the wheel that pip builds from a copy of the tree."""
    tree, target = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "recsys", tree / "recsys", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(tree)], check=True)
    (built,) = target.iterdir()
    return ZipFile(built)


def test_the_metadata_state_the_licences_of_code_and_data(wheel: ZipFile) -> None:
    (metadata_file,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(metadata_file).decode())
    assert metadata["License-Expression"] == "MIT AND LicenseRef-GroupLens"
    assert sorted(metadata.get_all("License-File", [])) == ["LICENSE", NOTICE]
    licenses = metadata_file.replace("METADATA", "licenses")
    assert wheel.read(f"{licenses}/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert wheel.read(f"{licenses}/{NOTICE}") == (ROOT / NOTICE).read_bytes()


def test_the_wheel_has_the_whole_terms_of_the_data(wheel: ZipFile) -> None:
    notice = wheel.read(NOTICE).decode()
    assert [term for term in TERMS if term not in notice] == []


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel: ZipFile) -> None:
    package = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "recsys").rglob("*") if path.is_file()
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == {
        name for name in package if "__pycache__" not in name
    }
