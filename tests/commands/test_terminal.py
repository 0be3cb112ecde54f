"""Ids and titles that would control a terminal: shown escaped, and exact in JSON and Parquet."""

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import recommend
from recsys.serving import saved_model
from tests.commands.in_process import run
from tests.serving.test_saved_model import make_model

TITLE = "\x1b[2J\x9b31m red \u202e and :smile: [bold]"
SHOWN = "\\u001b[2J\\u009b31m red \\u202e and :smile: [bold]"
USER = "u\x1b]0;owned\x07"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    made = make_model(n_users=3, text_ids=True)
    made = dataclasses.replace(
        made, user_ids=pa.array([USER, "b", "c"]), titles=pa.array([TITLE] * 5)
    )
    saved_model.save(tmp_path / "model", made)
    return tmp_path / "model"


def test_recommendations_on_a_terminal(model: Path) -> None:
    code, out, _ = run(recommend.main, "--model", model, "--user", USER, "-k", 1)
    assert code == 0
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(out)
    assert "user u\\u001b]0;owned\\u0007" in out.splitlines()[0]
    assert out.rstrip().endswith(SHOWN)


def test_recommendations_for_programs(model: Path, tmp_path: Path) -> None:
    code, out, _ = run(recommend.main, "--model", model, "--user", USER, "-k", 1, "--json")
    assert code == 0
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(out)
    assert [item["title"] for item in json.loads(out)[USER]] == [TITLE]
    assert (
        run(
            recommend.main,
            "--model",
            model,
            "--user",
            USER,
            "-k",
            1,
            "--output",
            tmp_path / "r.parquet",
        ).code
        == 0
    )
    (row,) = pq.read_table(tmp_path / "r.parquet").to_pylist()
    assert (row["user_id"], row["title"]) == (USER, TITLE)


def test_a_mistake_that_shows_an_id(model: Path) -> None:
    code, _, err = run(recommend.main, "--model", model, "--user", "x\x1b[31m")
    assert code == 2
    assert "\x1b" not in err
    assert "x\\u001b[31m" in err or "x\\x1b[31m" in err
