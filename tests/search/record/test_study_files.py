"""The folder of a study, made by two processes at once."""

from pathlib import Path

import pytest

from recsys.config.schema import Config
from recsys.errors import InputError
from recsys.search.record import study_files
from recsys.search.record.study_files import make_study, read_study
from recsys.search.record.study_storage import Start
from recsys.search.space.file import parse_space

SPACE = parse_space({"parameters": {"model.embedding_dim": {"low": 8, "high": 64}}}, "")


def test_of_two_that_make_a_study_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, looked, second = (
        tmp_path / "s",
        study_files.require_new,
        Config.model_validate({"study": {"seed": 2}}),
    )

    def look_and_be_overtaken(path: Path) -> None:
        looked(path)
        monkeypatch.setattr(study_files, "require_new", looked)
        make_study(folder, second, SPACE, Start())

    monkeypatch.setattr(study_files, "require_new", look_and_be_overtaken)
    with pytest.raises(InputError, match="--name: must be a new study, but got s, which exists"):
        make_study(folder, Config(), SPACE, Start())
    assert read_study(folder)[1] == second
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
