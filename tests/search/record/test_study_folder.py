"""The folder of a study, created by two processes at once."""

from pathlib import Path

import pytest

from recsys.config.schema import Config, replace_values
from recsys.errors import InputError
from recsys.search.record.origin import StudyOrigin
from recsys.search.record.study_folder import StudyFolder
from recsys.search.space.space_file import parse_space

SPACE = parse_space({"parameters": {"model.embedding_dim": {"low": 8, "high": 64}}}, "")


def test_a_study_of_an_earlier_version_ranks_every_epoch(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path / "s")
    study.create(replace_values(Config(), {"evaluation.every": 3}), SPACE, StudyOrigin())
    assert study.config().evaluation.every == 3
    file = study.path / "config.yaml"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if "every:" not in line))
    assert study.config().evaluation.every == 1


def test_one_of_two_processes_that_create_a_study_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, require_new = StudyFolder(tmp_path / "s"), StudyFolder.require_new
    other = Config.model_validate({"study": {"seed": 2}})

    def check_and_be_overtaken(self: StudyFolder) -> None:
        require_new(self)
        monkeypatch.setattr(StudyFolder, "require_new", require_new)
        study.create(other, SPACE, StudyOrigin())

    monkeypatch.setattr(StudyFolder, "require_new", check_and_be_overtaken)
    with pytest.raises(InputError, match="study: must be a new study, but got s, which exists"):
        study.create(Config(), SPACE, StudyOrigin())
    assert study.read()[1] == other
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
