import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys.config.schema import Config, replace_values
from recsys.data.negatives import index_pairs
from recsys.errors import InputError
from recsys.evaluation.standardise import build_ensemble, standardise
from recsys.models import build_model
from recsys.serving import saved_model
from recsys.serving.model_folder import FILES, find_model
from recsys.serving.recommend import recommend
from recsys.serving.saved_model import SavedModel
from recsys.training.checkpoint import start_training
from recsys.training.segments import generator_of


def make_model(name: str = "neumf", n_users: int = 3, text_ids: bool = False) -> SavedModel:
    config = Config.model_validate(
        {"model": {"name": name, "embedding_dim": 4}, "training": {"learning_rate": 3e-4}}
    )
    user_ids = pa.array(
        [f"u{n}" for n in range(n_users)]
        if text_ids
        else np.arange(10, 10 + n_users, dtype=np.int64)
    )
    return SavedModel(
        config=config,
        model=build_model(config.model, n_users, 5, generator_of(1, 0, 0, "cpu")),
        user_ids=user_ids,
        item_ids=pa.array(np.array([3, 7, 8, 20, 99], dtype=np.int32)),
        titles=pa.array(["A", None, "Ç", "D", "E"], pa.large_string()),
        seen=index_pairs(np.array([0, 0, 2]), np.array([4, 1, 3]), n_users, 5),
        is_trained=np.arange(n_users) != 1,
        metrics={"ndcg_at_10": 0.25, "part": "test"},
    )


@pytest.mark.parametrize("text_ids", [False, True])
def test_a_saved_model_is_loaded_as_it_was(text_ids: bool, tmp_path: Path) -> None:
    made = make_model(text_ids=text_ids)
    saved_model.save(tmp_path / "deep" / "model", made)
    loaded = saved_model.load(tmp_path / "deep" / "model")
    assert loaded.config == made.config
    assert loaded.user_ids.to_pylist() == made.user_ids.to_pylist()
    assert loaded.user_ids.type == (pa.string() if text_ids else pa.int64())
    assert (loaded.item_ids.to_pylist(), loaded.item_ids.type) == ([3, 7, 8, 20, 99], pa.int64())
    assert loaded.titles.to_pylist() == ["A", None, "Ç", "D", "E"]
    assert loaded.seen.offsets.tolist() == [0, 2, 2, 3]
    assert loaded.seen.items.tolist() == [1, 4, 3]
    assert loaded.seen.n_items == 5
    assert loaded.is_trained.tolist() == [True, False, True]
    assert loaded.metrics == {"ndcg_at_10": 0.25, "part": "test"}
    user, item = torch.arange(3), torch.arange(5)
    assert torch.equal(loaded.model(user, item), made.model.eval()(user, item))
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["deep", "model", *FILES])


def test_a_model_without_the_column_trained_is_read(tmp_path: Path) -> None:
    saved_model.save(tmp_path / "model", make_model())
    users = tmp_path / "model" / "users.parquet"
    pq.write_table(pq.read_table(users).drop_columns("trained"), users, write_page_checksum=True)
    assert saved_model.load(tmp_path / "model").is_trained.tolist() == [True, True, True]


def test_an_earlier_model_is_replaced_and_anything_else_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    saved_model.save(folder, make_model("gmf"))
    saved_model.save(folder, make_model("mlp"))
    assert saved_model.load(folder).config.model.name == "mlp"
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(
        InputError,
        match=r"model: must be new, empty or a model's folder, but got a folder with thesis\.txt\.",
    ):
        saved_model.save(folder, make_model("gmf"))
    assert (folder / "thesis.txt").read_text() == "years of work"
    with pytest.raises(InputError, match=r"got a file\."):
        saved_model.save(folder / "thesis.txt", make_model())
    with pytest.raises(
        InputError,
        match=rf"must have only folders above it, but got the file {folder}/thesis\.txt\.",
    ):
        saved_model.save(folder / "thesis.txt" / "deep" / "model", make_model())


def test_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    made = make_model("gmf")
    state = start_training(made.config, 3, 5, 0, "cpu")
    state.note_value(0.5)
    before = os.umask(0o027)
    try:
        saved_model.save(tmp_path / "model", made)
        state.save(tmp_path / "checkpoint.safetensors")
        state.save_best(tmp_path / "weights.safetensors", made.config)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == len(FILES) + 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


@contextmanager
def as_other_user() -> Iterator[None]:
    """Run the block as another user, since root may read everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize("name", [*FILES, "."])
def test_an_unreadable_file_is_named(name: str) -> None:
    # Only their owner may enter the folders that pytest makes.
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "models" / "m"
        Path(made).chmod(0o755)
        saved_model.save(folder, make_model())
        place = (folder / name).resolve()
        place.chmod(0)
        named = place / FILES[0] if name == "." else place
        expected = (
            f"^{named}: must be readable, but got: Permission denied. Change its permissions.$"
        )
        with as_other_user(), pytest.raises(InputError, match=expected):
            saved_model.load(find_model(Path("m"), Path(made)))
        place.chmod(0o700)


def test_a_model_below_an_unreadable_folder() -> None:
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        above = Path(made) / "models"
        saved_model.save(above / "m", make_model())
        above.chmod(0)
        with (
            as_other_user(),
            pytest.raises(
                InputError, match=f"^{above}/m: must be readable, but got: Permission denied"
            ),
        ):
            find_model(Path("m"), Path(made))
        above.chmod(0o700)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    saved_model.save(tmp_path / "model", make_model())
    (tmp_path / "model" / name).unlink()
    with pytest.raises(
        InputError, match=f"{name}: must exist, but got no such file. Train the model again"
    ):
        saved_model.load(tmp_path / "model")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage",
    [
        # With a NUL, as torn writes have: half a config may be a whole one with some defaults.
        lambda content: content[: len(content) // 2] + b"\0",
        lambda _: b"",
        lambda _: b"\x80\x04garbage",
    ],
)
def test_a_damaged_file_is_named(
    name: str, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    saved_model.save(tmp_path / "model", make_model())
    path = tmp_path / "model" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=name):
        saved_model.load(tmp_path / "model")


def test_a_flipped_bit_in_the_weights_is_found(tmp_path: Path) -> None:
    saved_model.save(tmp_path / "model", make_model())
    path = tmp_path / "model" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"model\.safetensors: .*weights that do not match their checksum"
    ):
        saved_model.load(tmp_path / "model")


def test_files_of_another_model_are_refused(tmp_path: Path) -> None:
    saved_model.save(tmp_path / "model", make_model())
    saved_model.save(tmp_path / "larger", make_model(n_users=4))
    (tmp_path / "larger" / "users.parquet").replace(tmp_path / "model" / "users.parquet")
    with pytest.raises(
        ValueError,
        match=r"model\.safetensors: .*of shape \(3,\), "
        r"where config, users and items ask for \(4,\)",
    ):
        saved_model.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        (
            "seen",
            pa.array([[1], [], [5]], pa.list_(pa.int32())),
            "seen items beyond the 5 of items.parquet",
        ),
        (
            "seen",
            pa.array([[1], [], [None]], pa.list_(pa.int32())),
            "1 nulls in lists of column seen",
        ),
        ("trained", pa.array(["yes", "no", "yes"]), "no column trained of type bool"),
        ("trained", pa.array([True, None, True]), "1 nulls in column trained"),
    ],
)
def test_users_with_a_damaged_column_are_refused(
    column: str, values: pa.Array, reason: str, tmp_path: Path
) -> None:
    saved_model.save(tmp_path / "model", make_model())
    path = tmp_path / "model" / "users.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index(column), column, values), path)
    with pytest.raises(InputError) as caught:
        saved_model.load(tmp_path / "model")
    assert caught.value.place == str(path)
    assert caught.value.value == reason


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (pa.table({"item": pa.array([0], pa.int32()), "item_id": [1]}), "no column title"),
        (
            pa.table({"item": pa.array([0], pa.int32()), "item_id": [1.5], "title": ["a"]}),
            "no column item_id of type int64 or string",
        ),
        (
            pa.table(
                {
                    "item": pa.array([0], pa.int32()),
                    "item_id": pa.array([None], pa.int64()),
                    "title": ["a"],
                }
            ),
            "1 nulls in",
        ),
        (
            pa.table({"item": pa.array([1], pa.int32()), "item_id": [1], "title": ["a"]}),
            "does not count from 0",
        ),
    ],
)
def test_a_table_with_other_columns_is_refused(
    table: pa.Table, reason: str, tmp_path: Path
) -> None:
    saved_model.save(tmp_path / "model", make_model())
    pq.write_table(table, tmp_path / "model" / "items.parquet")
    with pytest.raises(ValueError, match=rf"items\.parquet: .*{reason}"):
        saved_model.load(tmp_path / "model")


def test_metrics_that_are_not_a_mapping_are_refused(tmp_path: Path) -> None:
    saved_model.save(tmp_path / "model", make_model())
    (tmp_path / "model" / "metrics.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match=r"metrics\.json: .*got a list"):
        saved_model.load(tmp_path / "model")


def test_a_model_is_found_by_path_and_by_name(tmp_path: Path) -> None:
    saved_model.save(tmp_path / "models" / "best", make_model())
    assert find_model(tmp_path / "models" / "best", tmp_path) == tmp_path / "models" / "best"
    assert find_model(Path("best"), tmp_path) == tmp_path / "models" / "best"
    with pytest.raises(InputError, match=r"worst: must be a model's folder .*Models here: best\."):
        find_model(Path("worst"), tmp_path)


def make_ensemble() -> SavedModel:
    """An ensemble of two models of the users and items of `make_model`, weighted by 3/4 and 1/4.

    Their configs differ in the model and the training.
    """
    first = make_model("inner_product")
    configs = [
        replace_values(first.config, {"training.loss": "squared", "training.l2": 0.5}),
        replace_values(first.config, {"model.name": "mlp", "model.n_layers": 1}),
    ]
    models = [build_model(config.model, 3, 5, generator_of(2, 0, 0, "cpu")) for config in configs]
    members = [standardise(model, 3, 5) for model in models]
    return replace(first, model=build_ensemble(members, [0.75, 0.25]), members=configs)


def test_an_ensemble_is_loaded_as_it_was(tmp_path: Path) -> None:
    made = make_ensemble()
    saved_model.save(tmp_path / "model", made)
    loaded = saved_model.load(tmp_path / "model")
    assert (loaded.config, loaded.members) == (made.config, made.members)
    user, item = torch.arange(3), torch.arange(5)
    assert torch.equal(loaded.model(user, item), made.model.eval()(user, item))
    found, expected = (recommend(one, [10, 12], 3).to_pydict() for one in (loaded, made))
    assert found == expected
    # As any other model: the same files, and another model in its place.
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == sorted(FILES)
    saved_model.save(tmp_path / "model", make_model())
    assert not saved_model.load(tmp_path / "model").members


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ("3", r"config\.yaml: must be .*, but got members that are no list of configs\."),
        ("[7]", r"config\.yaml: must be .*, but got members that are no list of configs\."),
        (
            "[{model: {name: cats}}]",
            r"config\.yaml, member 1: model\.name: must be one of .*, but got 'cats'",
        ),
        ("[{model: {name: gmf}}]", r"model\.safetensors: must be .*, but got "),
        ("[]", r"model\.safetensors: must be .*, but got "),
    ],
)
def test_members_that_do_not_fit_are_refused(members: str, message: str, tmp_path: Path) -> None:
    saved_model.save(tmp_path / "model", make_ensemble())
    path = tmp_path / "model" / "config.yaml"
    kept = path.read_text().partition("members:")[0]
    path.write_text(f"{kept}members: {members}\n")
    with pytest.raises(InputError, match=message):
        saved_model.load(tmp_path / "model")
