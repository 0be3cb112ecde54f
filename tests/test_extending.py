"""Every example of docs/extending.md, run as the page says: a file, a line of a table, a search."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pyarrow as pa
import pytest
import torch

from recsys.config import components
from recsys.config.components import LOSSES, METRICS, code_of
from recsys.config.schema import Config, replace_values
from recsys.config.sections import DataConfig
from recsys.data.readers import formats
from recsys.data.sources.layouts import find_source
from recsys.errors import InputError
from recsys.search.record.study_record import StudyRecord
from recsys.search.sampling.samplers import make_sampler
from recsys.search.space.space_file import parse_space
from recsys.search.tuning.trial_texts import metric_title
from recsys.training.fit import fit
from tests.models import test_contract
from tests.search.sampling import test_samplers
from tests.search.tuning import test_pruning
from tests.training.small_data import two_tastes

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```python\n# (?:a line of )?(\S+)\n(.*?)```", re.DOTALL)


def blocks(heading: str) -> dict[str, str]:
    """Return the code of a section: each block by its first line, a path or the name of a table."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return dict(BLOCK.findall(section))


def install(heading: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a section's code to recsys as the page says, until the test ends."""
    (path, code), (table, line) = blocks(heading).items()
    add_code(path, code, monkeypatch)
    register(table, line, monkeypatch)


def add_code(path: str, code: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Add code to a module of recsys, which may be new, and return the module."""
    name = path.removesuffix(".py").replace("/", ".")
    if not (ROOT / path).exists():
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    module = importlib.import_module(name)
    added = dict(vars(module))
    exec(compile(code, path, "exec"), added)
    for key in added.keys() - vars(module).keys():
        monkeypatch.setattr(module, key, added[key], raising=False)
    return module


def register(table: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = eval(f"{{{line}}}", dict(vars(components)))
    for key, value in entry.items():
        monkeypatch.setitem(getattr(components, table), key, value)


def epochs_of(values: dict[str, object]) -> list[dict[str, float]]:
    """Return the metrics of each epoch of a small training."""
    settings = {"training.learning_rate": 0.05, "training.max_epochs": 8, "model.bias": False}
    config = replace_values(Config(), {**settings, **values})
    return [epoch.metrics for epoch in fit(config, two_tastes(), seed=0)]


def test_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    install("A model", monkeypatch)
    for settings in test_contract.SETTINGS:
        test_contract.test_logits_have_the_shape_of_the_items("distance", settings, "cpu")
    model = test_contract.build("distance", {"embedding_dim": 2})
    with torch.no_grad():
        for name, rows in (("users", [[1.0, 2.0]]), ("items", [[4.0, 6.0], [1.0, 2.0]])):
            model.get_submodule(name).get_parameter("weight")[: len(rows)] = torch.tensor(rows)
    logits = model(torch.tensor([0]), torch.tensor([[0, 1]]))
    torch.testing.assert_close(logits, torch.tensor([[-25.0, 0.0]]))  # 3^2 + 4^2
    space = parse_space({"parameters": {"model.name": {"choices": ["gmf", "distance"]}}}, "space")
    assert list(space.paths) == ["model.name"]
    metrics = epochs_of({"model.name": "distance"})
    assert metrics[-1]["val_hit_rate_at_10"] > metrics[0]["val_hit_rate_at_10"]


def test_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    install("A loss", monkeypatch)
    hinge = code_of(LOSSES["hinge"].code or "")
    logits = torch.tensor([[2.0, 1.5, 0.0], [0.0, 0.0, 3.0]])
    torch.testing.assert_close(hinge(logits), torch.tensor([0.5, 1.0 + 4.0]))
    metrics = epochs_of({"training.loss": "hinge"})
    assert metrics[-1]["train_loss"] < 0.8 * metrics[0]["train_loss"]


def test_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    install("A metric", monkeypatch)
    precision = code_of(METRICS["precision"].code)
    # User 0 has two held-out items within the first 4, user 1 has one of two.
    assert precision([0, 5, 3, 2], 4, [0, 1, 1, 0]).tolist() == [0.5, 0.25]
    config = replace_values(Config(), {"study.metric": "precision"})
    assert (config.metric_name, metric_title(config)) == (
        "val_precision_at_10",
        "Precision@10 (full)",
    )
    values = epochs_of({"study.metric": "precision", "training.max_epochs": 1})[0]
    # Each user has one held-out item: a hit is a tenth of the list.
    assert values["val_precision_at_10"] == pytest.approx(values["val_hit_rate_at_10"] / 10)


def test_a_pruner(monkeypatch: pytest.MonkeyPatch) -> None:
    install("A pruner", monkeypatch)
    assert test_pruning.run("threshold", [[0.5, 0.6], [0.04, 0.9], [0.06, 0.1]]) == [2, 1, 2]


def test_a_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    install("A sampler", monkeypatch)
    config = replace_values(Config(), {"study.sampler": "univariate_tpe"})
    space = parse_space({"parameters": {"training.l2": {"low": 0.0, "high": 1.0}}}, "")
    record = StudyRecord(optuna.create_study(direction="maximize"), config, space)
    record.use(make_sampler(config, record, test_samplers.OneSecond()))
    assert record.ask()[1].training.l2 != record.ask()[1].training.l2


def test_a_file_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (path, code), (table, line) = blocks("A file format").items()
    entry = eval(f"{{{line}}}", {"arrow": add_code(path, code, monkeypatch)})
    monkeypatch.setattr(formats, table, {**entry, **formats.FORMATS})
    columns = {
        "movieId": ["x", "y", "x"],
        "userId": [7, 7, 8],
        "stars": [3.5, 5.0, 4.0],
        "date": pa.array([30, 20, 10], pa.timestamp("s")),
    }
    assert arrow_rows(tmp_path, columns) == [
        # user, item, whether positive, time, order: the second record batch has the third row
        (7, "x", False, 30, 0),
        (7, "y", True, 20, 1),
        (8, "x", True, 10, 1 << 40),
    ]
    columns["stars"] = [3.5, 5.0, None]
    with pytest.raises(InputError, match=r"data\.feather, row 3, column stars: must be a finite"):
        arrow_rows(tmp_path, columns)


def arrow_rows(folder: Path, columns: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Write an Arrow IPC file in record batches of two rows, and read it as recsys does."""
    table = pa.table(columns)
    with pa.ipc.new_file(str(folder / "data.feather"), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    source = find_source(DataConfig(source=str(folder / "data.feather")))
    rows: list[tuple[Any, ...]] = []
    for fragment in formats.list_fragments(source, None):
        assert fragment.format == "arrow"
        for batch in formats.read(fragment, threshold=4.0):
            assert batch.time is not None
            ids = batch.user.to_pylist(), batch.item.to_pylist()
            numbers = (batch.positive, batch.time.whole, batch.order)
            rows += zip(*ids, *(values.tolist() for values in numbers), strict=True)
    return rows


def test_every_section_with_code_is_tested() -> None:
    sections = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    tested = {name.removeprefix("test_") for name in globals()}
    assert [s for s in sections if blocks(s) and s.lower().replace(" ", "_") not in tested] == []
