"""Mistakes of the user: one line on standard error, exit code 2, and no file left behind."""

import gzip
import io
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import evaluate, preprocess, recommend, train, tune
from recsys.data.preprocessing import pipeline
from tests.commands.in_process import answer, run
from tests.conftest import Tuned
from tests.small_search import ratings_csv

COMMANDS = {
    "tune": tune.main,
    "train": train.main,
    "evaluate": evaluate.main,
    "recommend": recommend.main,
    "preprocess": preprocess.main,
}
SPACE = (
    "parameters: {model.embedding_dim: {low: 4, high: 16}, model.dropout: {low: 0.0, high: 0.5}}\n"
)
HEADER = "user_id,item_id,rating,timestamp\n"
TUNE = "tune --space space.yaml --data ratings.csv --dir exp --name s --json"


class Case(NamedTuple):
    """A mistake.

    `argv`: the command line. `answer`: the text after `error: `, with `...` for a library's words.
    `files`: replace the good ones.
    """

    argv: str
    answer: str
    files: Mapping[str, str | bytes] = MappingProxyType({})


def space(parameters: str, rest: str = "") -> dict[str, str | bytes]:
    return {"space.yaml": f"parameters: {{{parameters}}}\n{rest}"}


def rows(*lines: str) -> dict[str, str | bytes]:
    return {"ratings.csv": HEADER + "".join(f"{line}\n" for line in lines)}


def packed(name: str, content: str) -> bytes:
    """Return a zip with one member."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


EARLY = {
    "unknown config path in the space": Case(
        TUNE,
        "space.yaml: model.embeding_dim: must be a config path, but got an unknown name. Did you "
        "mean model.embedding_dim?",
        space("model.embeding_dim: {low: 4, high: 16}"),
    ),
    "unknown config path in --set": Case(
        f"{TUNE} --set training.learning_rat=1",
        "--set: training.learning_rat: must be a config path, but got an unknown name. Did you "
        "mean training.learning_rate?",
    ),
    "unknown config path in --config": Case(
        f"{TUNE} --config c.yaml",
        "c.yaml: data.splitt: must be a config path, but got an unknown name. Did you mean "
        "data.split?",
        {"c.yaml": "data: {splitt: random}"},
    ),
    "wrong type": Case(
        f"{TUNE} --set model.n_layers=two",
        "--set: model.n_layers: must be a whole number, but got 'two'. The default is 3.",
    ),
    "wrong type of a flag": Case(
        f"{TUNE} --trials many",
        "--trials: study.n_trials: must be a whole number, but got 'many'. The default is null.",
    ),
    "out of bounds": Case(
        f"{TUNE} --max-epochs 0",
        "--max-epochs: training.max_epochs: must be at least 1, but got 0. The default is 20.",
    ),
    "wrong duration": Case(
        f"{TUNE} --time-budget soon",
        "--time-budget: study.time_budget: must be a duration, but got 'soon'. "
        "Write it as 90s, 10m, 1h30m or a number of seconds.",
    ),
    "fraction in a range of whole numbers": Case(
        TUNE,
        "space.yaml: model.embedding_dim: must be a whole number, but got 4.5. The default is 16.",
        space("model.embedding_dim: {low: 4.5, high: 16}"),
    ),
    "reversed range": Case(
        TUNE,
        "space.yaml: model.embedding_dim: low must be less than high, but got 16 and 4. Swap or "
        "widen them.",
        space("model.embedding_dim: {low: 16, high: 4}"),
    ),
    "empty range": Case(
        TUNE,
        "space.yaml: model.embedding_dim: low must be less than high, but got 8 and 8. Swap or "
        "widen them.",
        space("model.embedding_dim: {low: 8, high: 8}"),
    ),
    "range without an end": Case(
        TUNE,
        "space.yaml: model.embedding_dim: must be {low, high}, with log: true if wanted, or "
        "{choices: "
        "[...]}, either with when, or a list of such, but got {'low': 16}. "
        "Write it as one of the two.",
        space("model.embedding_dim: {low: 16}"),
    ),
    "choice that the field refuses": Case(
        TUNE,
        "space.yaml: model.name: must be one of inner_product, gmf, mlp, neumf, "
        "autoencoder, diffusion, rqvae, but got "
        "'transformer'. The default is neumf.",
        space("model.name: {choices: [gmf, transformer]}"),
    ),
    "no choice": Case(
        TUNE,
        "space.yaml: model.name: must be {low, high}, with log: true if wanted, or {choices: "
        "[...]}, either "
        "with when, or a list of such, but got {'choices': []}. "
        "Write it as one of the two.",
        space("model.name: {choices: []}"),
    ),
    "condition on an unknown parameter": Case(
        TUNE,
        "space.yaml: model.n_layers: when must name a parameter of this file, but got model.nam. "
        "Did you mean model.n_layers?",
        space("model.n_layers: {low: 1, high: 2, when: {model.nam: [mlp]}}"),
    ),
    "condition on itself": Case(
        TUNE,
        "space.yaml: model.n_layers: when must name another parameter, but got the parameter "
        "itself. Remove it.",
        space("model.n_layers: {low: 1, high: 2, when: {model.n_layers: [1]}}"),
    ),
    "warm start outside": Case(
        TUNE,
        "space.yaml: warm_start 1: model.embedding_dim must be from 4 to 16, but got 64. Correct "
        "it or widen the domain.",
        space("model.embedding_dim: {low: 4, high: 16}", "warm_start: [{model.embedding_dim: 64}]"),
    ),
    "several mistakes": Case(
        TUNE,
        "space.yaml: 2 mistakes\n"
        "  model.embeding_dim: must be a config path, but got an unknown name. Did you mean "
        "model.embedding_dim?\n"
        "  model.name: must be one of inner_product, gmf, mlp, neumf, "
        "autoencoder, diffusion, rqvae, but got 'transformer'. "
        "The default is neumf.",
        space("model.embeding_dim: {low: 4, high: 16}, model.name: {choices: [gmf, transformer]}"),
    ),
    "nothing left to search": Case(
        f"{TUNE} --set model.embedding_dim=8 --set model.dropout=0.1",
        "space.yaml: must leave a parameter to search, but got all set. Leave one of them "
        "unset, or train this config with recsys.train.",
    ),
    "no space file": Case(
        "tune --space spac.yaml --data ratings.csv --dir exp",
        "spac.yaml: must be a YAML file, but got no such file. Did you mean space.yaml?",
    ),
    "space that is no YAML": Case(
        TUNE,
        "space.yaml, line 1, column 27: must be valid YAML, but got .... Correct the line.",
        {"space.yaml": "parameters: {model.name: ["},
    ),
    "binary space": Case(
        TUNE,
        "space.yaml: must be UTF-8 text, but got other bytes. Save it as a YAML text file.",
        {"space.yaml": b"\x93\xff\x00"},
    ),
    "empty space": Case(
        TUNE,
        "space.yaml: must be a mapping of names to values, but got an empty file. See the "
        "examples in the README.",
        {"space.yaml": ""},
    ),
    "tag that makes an object": Case(
        TUNE,
        "space.yaml, line 1, column 13: must be valid YAML, but got .... Correct the line.",
        {"space.yaml": "parameters: !!python/object/apply:os.getcwd []"},
    ),
    "name twice in a config": Case(
        f"{TUNE} --config c.yaml",
        "c.yaml, line 2, column 1: must be valid YAML, but got .... Correct the line.",
        {"c.yaml": "model: {name: gmf}\nmodel: {name: mlp}"},
    ),
    "parameter that the search cannot change": Case(
        TUNE,
        "space.yaml: data.positive_threshold: must be under model or training, since the trials "
        "of a study share the rest, "
        "but got data.positive_threshold. Set it in the config.",
        space("data.positive_threshold: {low: 1.0, high: 4.0}"),
    ),
    "setting without a value": Case(
        f"{TUNE} --set model.name",
        "--set: must be PATH=VALUE, but got 'model.name'. Write it as training.batch_size=512.",
    ),
    "resuming without a name": Case(
        "tune --resume --dir exp",
        "--name: must be given with --resume, but got nothing. Name the study.",
    ),
    "resuming no study": Case(
        "tune --name s --resume --dir exp",
        "exp/studies/s: must be a study, but got no record of one. Start one with python -m "
        "recsys.tune.",
    ),
    "warm start of a resumed study": Case(
        "tune --name s --resume --warm-start t --dir exp",
        "--warm-start: must start a new study, but got t with --resume. Leave it out, or choose "
        "another --name.",
    ),
    "warm start from no study": Case(
        f"{TUNE} --warm-start t",
        "exp/studies/t: must be a study, but got no record of one. Start one with python -m "
        "recsys.tune.",
    ),
    "missing file of a split": Case(
        "preprocess --dir exp --set data.files.train=ratings.csv --set data.files.test=rating.csv",
        "data.files.test: must be a path that exists, but got 'rating.csv'. Did you mean "
        "ratings.csv?",
    ),
    "missing column of the config": Case(
        "preprocess --data ratings.csv --dir exp --set data.columns.user=who",
        "data.columns.user: must name a column of ratings.csv, but got 'who'. "
        "The columns are user_id, item_id, rating, timestamp.",
    ),
    "folder without data": Case(
        "preprocess --data logs --dir exp",
        "logs: must hold u.data, ratings.dat, ratings.csv, Parquet files or NAME.train.rating "
        "with NAME.test.rating, "
        "but holds a.txt, b.txt. Pass the file with the interactions.",
        {"logs/a.txt": "x", "logs/b.txt": "x"},
    ),
    "zip that climbs out": Case(
        "preprocess --data r.zip --dir exp",
        "r.zip: members must be inside the archive, but got '../r.csv'. Do not trust this file.",
        {"r.zip": packed("../r.csv", ratings_csv())},
    ),
    "unknown model": Case(
        f"{TUNE} --set model.name=transformer",
        "--set: model.name: must be one of inner_product, gmf, mlp, neumf, "
        "autoencoder, diffusion, rqvae, but got 'transformer'. "
        "The default is neumf.",
    ),
    "unknown data set": Case(
        "tune --space space.yaml --data ml-1mm --dir exp",
        "--data: must be a data set or a path that exists, but got 'ml-1mm'. Did you mean ml-1m?",
    ),
    "unknown data set in the config": Case(
        "tune --space space.yaml --set data.source=ml-1mm --dir exp",
        "data.source: must be a data set or a path that exists, but got 'ml-1mm'. Did you mean "
        "ml-1m?",
    ),
    "unknown data set of train": Case(
        "train --config c.yaml --data ml-1mm --dir exp",
        "--data: must be a data set or a path that exists, but got 'ml-1mm'. Did you mean ml-1m?",
        {"c.yaml": "model: {name: gmf}"},
    ),
    "unknown data set of preprocess": Case(
        "preprocess --data ml-1mm --dir exp",
        "--data: must be a data set or a path that exists, but got 'ml-1mm'. Did you mean ml-1m?",
    ),
    "data with a name that is too long": Case(
        f"preprocess --data {'x' * 300} --dir exp",
        f"{'x' * 300}: must be readable, but got: File name too long. Shorten its name.",
    ),
    "folder with a name that is too long": Case(
        f"tune --space space.yaml --data ratings.csv --dir {'x' * 300}",
        f"{'x' * 300}...: must be accessible, but got File name too long. Give another --dir, or "
        "change its permissions.",
    ),
    "model with a name that is too long": Case(
        f"evaluate --model {'x' * 300} --dir exp",
        f"{'x' * 300}: must be readable, but got: File name too long. Shorten its name.",
    ),
    "config file that is a folder": Case(
        f"{TUNE} --config 1234.yaml",
        "1234.yaml: must be a YAML file, but got no such file. Check the path.",
        {"1234.yaml/x": ""},
    ),
    "missing file": Case(
        "tune --space space.yaml --data rating.csv --dir exp",
        "--data: must be a data set or a path that exists, but got 'rating.csv'. Did you "
        "mean ratings.csv?",
    ),
    "empty file": Case(
        TUNE,
        "ratings.csv: must hold interactions, but the file is empty. Give a file with user and "
        "item columns.",
        {"ratings.csv": ""},
    ),
    "data file named like an argument": Case(
        "tune --space space.yaml --data study --dir exp",
        "study: must hold interactions, but the file is empty. Give a file with user and item "
        "columns.",
        {"study": ""},
    ),
    "config file named like an argument": Case(
        f"{TUNE} --config study",
        "study: model.dropout: must be less than 1, but got 1. The default is 0.0.",
        {"study": "model: {dropout: 1}"},
    ),
    "binary file": Case(
        TUNE,
        "ratings.csv: must be CSV, TSV, gzip, zip or Parquet, but it is binary. Convert it, or "
        "pass the file with the ratings.",
        {"ratings.csv": b"\x00\x01\x02\xff" * 100},
    ),
    "missing column": Case(
        TUNE,
        "ratings.csv: must have a column with the item ids, but the columns are user_id, rating. "
        "Name it with data.columns.item.",
        {"ratings.csv": "user_id,rating\n1,5\n2,5\n"},
    ),
    "study name that climbs out": Case(
        "tune --space space.yaml --data ratings.csv --dir exp --name ../../s",
        "--name: must be at most 100 letters, digits, dots, dashes and underscores, but got "
        "'../../s'. Rename it.",
    ),
    "existing study": Case(
        TUNE,
        "--name: must be a new study, but got s, which exists. Choose another study name, "
        "or resume the study.",
        {"exp/studies/s/optuna.db": b""},
    ),
    "directory that is a file": Case(
        "tune --space space.yaml --data ratings.csv --dir ratings.csv",
        "--dir: must follow the usage, but got: Directory 'ratings.csv' is a file. See --help.",
    ),
    "unknown option": Case(
        f"{TUNE} --max-epoch 3",
        "--max-epoch: must be an option of this command, but got an unknown one. Did you mean "
        "--max-epochs?",
    ),
    "no space": Case(
        "tune --data ratings.csv",
        "--space: must be given, but got nothing. Give a search-space file.",
    ),
    "training nothing": Case(
        "train --dir exp",
        "command line: must have one of --best-of, --trial, --config, but got none. Give exactly "
        "one.",
    ),
    "training two things": Case(
        "train --best-of s --config c.yaml --dir exp",
        "command line: must have one of --best-of, --trial, --config, but got --best-of and "
        "--config. Give exactly one.",
    ),
    "unknown study": Case(
        "train --best-of s --dir exp",
        "exp/studies/s: must be a study, but got no record of one. Start one with python -m "
        "recsys.tune.",
    ),
    "study name that climbs out, in train": Case(
        "train --best-of ../s --dir exp",
        "--best-of: must be at most 100 letters, digits, dots, dashes and underscores, but got "
        "'../s'. Rename it.",
    ),
    "study of a trial that climbs out": Case(
        "train --trial ../s/0 --dir exp",
        "--trial: must be at most 100 letters, digits, dots, dashes and underscores, but got "
        "'../s'. Rename it.",
    ),
    "trial without a number": Case(
        "train --trial s --dir exp",
        "--trial: must be STUDY/TRIAL, but got 's'. Write it as s/0.",
    ),
    "GPU where torch sees none": Case(
        "train --config c.yaml --dir exp",
        "resources.gpu: must be 0 where torch sees no GPU, but got 1. Set it to 0 to train on the "
        "CPU.",
        {"c.yaml": "resources: {gpu: 1}"},
    ),
    "no seed": Case(
        "train --config c.yaml --dir exp --seeds 0",
        "--seeds: must follow the usage, but got: 0 is not in the range x>=1. See --help.",
    ),
    "ensemble of one": Case(
        "train --best-of s --dir exp --ensemble 1",
        "--ensemble: must follow the usage, but got: 1 is not in the range 2<=x<=50. See --help.",
    ),
    "ensemble without a study": Case(
        "train --trial s/0 --dir exp --ensemble 4",
        "--ensemble: must come with --best-of, but got --trial. Name the study of its members.",
    ),
    "ensemble of several seeds": Case(
        "train --best-of s --dir exp --ensemble 4 --seeds 3",
        "--seeds: must be 1 with --ensemble, but got 3. Each member has its trial's seed.",
    ),
    "out of place": Case(
        "train --config c.yaml --dir exp --out data",
        "data: must be new, empty or a model's folder, but got a folder with x.txt. Choose "
        "another folder.",
        {"c.yaml": "{model: {name: gmf}}", "data/x.txt": "x"},
    ),
    "the current folder as the place": Case(
        "train --config c.yaml --dir exp --out .",
        "--out: must name a folder, but got '.'. Give its path from outside.",
        {"c.yaml": "{model: {name: gmf}}"},
    ),
    "unknown model folder": Case(
        "evaluate --model m --dir exp",
        "m: must be a model's folder or a name in exp/models, but got no such folder. Train one "
        "with `python -m recsys.train`.",
    ),
    "recommending to no user": Case(
        "recommend --model m --dir exp",
        "command line: must have one of --user, --all-users and --history, but got none. Give "
        "exactly one.",
    ),
    "no list": Case(
        "recommend --model m --dir exp --user 1 -k 0",
        "-k: must follow the usage, but got: 0 is not in the range x>=1. See --help.",
    ),
    "history that is a folder": Case(
        "recommend --model m --dir exp --history .",
        "m: must be a model's folder or a name in exp/models, but got no such folder. Train one "
        "with `python -m recsys.train`.",
    ),
    "output in S3": Case(
        "recommend --model m --dir exp --all-users --output s3://b/x.parquet",
        "--output: must be a file on a disk, but got s3:/b/x.parquet. Give another path.",
    ),
    "output that is a folder": Case(
        "recommend --model m --dir exp --all-users --output x.parquet",
        "--output: must be a file on a disk, but got x.parquet. Give another path.",
        {"x.parquet/y": ""},
    ),
    "wrong output": Case(
        "recommend --model m --dir exp --all-users --output x.csv",
        "--output: must end in .parquet, but got x.csv. Rename it.",
    ),
}

IN_THE_DATA = {
    "text where a number belongs": Case(
        TUNE,
        "ratings.csv, row 3, column rating: must be a number, but got 'abc'. Correct or remove "
        "the row.",
        rows("1,1,5,1", "2,2,abc,2"),
    ),
    "NaN rating": Case(
        TUNE,
        "ratings.csv, row 3, column rating: must be a number, but got 'nan'. Correct or remove "
        "the row.",
        rows("1,1,5,1", "2,2,nan,2"),
    ),
    "infinite rating": Case(
        TUNE,
        "ratings.csv, row 3, column rating: must be a number, but got '-inf'. Correct or remove "
        "the row.",
        rows("1,1,5,1", "1,2,-inf,1", "2,2,3,2"),
    ),
    "one user only": Case(
        TUNE,
        "ratings.csv: must hold at least 2 users, but got 1. Check that data.columns.user names "
        "the users' column.",
        rows("1,1,5,1", "1,2,5,2", "1,3,5,3"),
    ),
    "user who saw everything": Case(
        TUNE,
        "ratings.csv: each user must have an item left to draw as a negative, but 1 user (7) "
        "interacted with all 12 items. "
        "Remove it.",
        rows(*(f"7,{i},5,{i}" for i in range(12)), "8,0,5,1", "8,1,5,2", "8,2,5,3"),
    ),
    "core that removes all": Case(
        f"{TUNE} --set data.min_user_interactions=15",
        "data.min_user_interactions, data.min_item_interactions: must leave at least 2 users and "
        "1 item, but "
        "15 and 1 leave 0 users and 0 items. "
        "Lower them.",
    ),
    "k larger than the catalogue": Case(
        f"{TUNE} --set evaluation.k=[5,81]",
        "evaluation.k: must be at most the number of items, 80, but got 81. Lower it.",
    ),
    "no times": Case(
        TUNE,
        "data.split: leave_one_out needs times, but ratings.csv has none: it has no column with "
        "times. "
        "Name the column with data.columns.timestamp, or set data.split to random.",
        {"ratings.csv": "user_id,item_id\n1,1\n2,2\n"},
    ),
    "truncated gzip": Case(
        "tune --space space.yaml --data r.csv.gz --dir exp --name s",
        "r.csv.gz: must be a whole gzip file, but it is cut off or damaged (...). Copy or "
        "download it again.",
        {"r.csv.gz": gzip.compress(ratings_csv().encode())[:-400]},
    ),
    "truncated Parquet": Case(
        "preprocess --data r.parquet --dir exp",
        "r.parquet: must be a whole Parquet file, but it is cut off or damaged (...). Copy or "
        "write it again.",
    ),
    "GPU where none is": Case(
        f"{TUNE} --gpu 1",
        "--gpu: must be at most what one node has, 0, but got 1. "
        "Ask for less, or join a cluster with such nodes (cluster.address).",
    ),
    "more CPUs than exist": Case(
        f"{TUNE} --cpu 4096",
        "--cpu: must be at most what one node has, 2, but got 4096. "
        "Ask for less, or join a cluster with such nodes (cluster.address).",
    ),
    "tracking URI that is none": Case(
        f"{TUNE} --set tracking.uri=http://[::1",
        "tracking.uri: must be a reachable MLflow store, but got http://[::1 (Invalid IPv6 URL). "
        "Start its server, or set tracking.required=false to run without it.",
    ),
    "tracking URI that names no file": Case(
        f"{TUNE} --set tracking.uri=sqlite:///",
        "tracking.uri: must be a reachable MLflow store, but got sqlite:/// (it names no file). "
        "Start its server, or set tracking.required=false to run without it.",
    ),
    "tracking database without its driver": Case(
        f"{TUNE} --set tracking.uri=mssql://x",
        "tracking.uri: must be a reachable MLflow store, but got mssql://x (No module named "
        "'pyodbc'). Start its server, or set tracking.required=false to run without it.",
    ),
    "missing server": Case(
        f"{TUNE} --set tracking.uri=http://127.0.0.1:9",
        "tracking.uri: must be a reachable MLflow store, but got http://127.0.0.1:9 (...). "
        "Start its server, or set tracking.required=false to run without it.",
    ),
}


def ask(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the case in `folder`; compare its exit code, its output and its files."""
    monkeypatch.chdir(folder)
    for name, content in {"space.yaml": SPACE, "ratings.csv": ratings_csv(), **case.files}.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    studies = sorted(Path().glob("**/studies/*"))
    command, *argv = case.argv.split()
    code, out, err = run(COMMANDS[command], *argv)
    assert (code, out) == (2, "")
    assert re.fullmatch(re.escape(f"error: {case.answer}\n").replace(r"\.\.\.", ".*"), err), err
    assert sorted(Path().glob("**/studies/*")) == studies
    assert not list(Path().glob("**/*.tmp"))
    assert not list(Path().glob("exp/models/*"))


@pytest.mark.parametrize("name", EARLY)
def test_before_ray_starts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_args: object) -> None:
        pytest.fail("asked for Ray")

    monkeypatch.setattr(pipeline, "connect", start)
    ask(EARLY[name], tmp_path, monkeypatch)


@pytest.mark.parametrize("name", IN_THE_DATA)
def test_in_the_data_or_the_cluster(
    ray_here: None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "truncated Parquet":
        pq.write_table(
            pa.table({"user": np.arange(1000), "item": np.arange(1000)}), tmp_path / "r.parquet"
        )
        (tmp_path / "r.parquet").write_bytes((tmp_path / "r.parquet").read_bytes()[:2000])
    ask(IN_THE_DATA[name], tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def model(
    ray_here: None, tuned: Tuned, ratings: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "c.yaml").write_text("{training: {max_epochs: 1}, model: {name: gmf}}")
    store = ["--set", f"tracking.uri={tuned.uri}", "--set", "tracking.experiment=damage"]
    trained = answer(
        train.main, "--config", folder / "c.yaml", "--data", ratings, "--dir", folder, *store
    )
    return Path(trained["model"])


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 0xFF
    path.write_bytes(content)


def overwrite(path: Path) -> None:
    path.write_bytes(b"\x80\x05 no longer what it was")


DAMAGE = {
    "no weights": (
        "model.safetensors",
        remove,
        "must exist, but got no such file. Train the model again.",
    ),
    "cut weights": ("model.safetensors", cut, "must be an intact file of this model, but got "),
    "flipped bit in the weights": (
        "model.safetensors",
        flip,
        "but got weights that do not match their checksum. Train",
    ),
    "no config": ("config.yaml", remove, "must exist, but got no such file"),
    "binary config": ("config.yaml", overwrite, "must be UTF-8 text, but got other bytes"),
    "no users": ("users.parquet", remove, "must exist, but got no such file"),
    "cut users": ("users.parquet", cut, "must be an intact file of this model, but got "),
    "other items": ("items.parquet", overwrite, "must be an intact file of this model, but got "),
    "cut metrics": ("metrics.json", cut, "must be an intact file of this model, but got "),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_model(model: Path, tmp_path: Path, name: str) -> None:
    file, damage, message = DAMAGE[name]
    shutil.copytree(model, tmp_path / "m")
    damage(tmp_path / "m" / file)
    asked: list[tuple[Callable[[list[str]], int], list[str]]] = [
        (evaluate.main, []),
        (recommend.main, ["--user", "1"]),
    ]
    for main, argv in asked:
        code, out, err = run(main, "--model", tmp_path / "m", "--dir", model.parents[1], *argv)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {tmp_path / 'm' / file}: ")
        assert message in err
        assert err.count("\n") == 1


def test_a_list_longer_than_the_catalogue(model: Path) -> None:
    done = run(recommend.main, "--model", model, "--user", "1", "-k", "81")
    assert done == (
        2,
        "",
        "error: -k: must be from 1 to the number of items, 80, but got 81. Lower it.\n",
    )


def test_other_data_than_the_model_was_trained_on(
    model: Path, ratings: Path, tmp_path: Path
) -> None:
    text = ratings.read_text()
    shutil.copytree(model, tmp_path / "m")
    (tmp_path / "ratings.csv").write_text(text.replace("\n0,", "\n1000,"))
    config = (tmp_path / "m" / "config.yaml").read_text()
    (tmp_path / "m" / "config.yaml").write_text(
        config.replace(str(ratings), str(tmp_path / "ratings.csv"))
    )
    code, out, err = run(evaluate.main, "--model", tmp_path / "m", "--dir", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith(
        f"error: {tmp_path / 'm'}: must be evaluated on the data it was trained on, but got other "
        "data at "
    )


@pytest.mark.parametrize("ids", ["negative", "text"])
def test_ids_of_any_kind(ray_here: None, ids: str, tmp_path: Path) -> None:
    lines = [line.split(",") for line in ratings_csv().splitlines()[1:]]
    names: dict[str, Callable[[object], str]] = {
        "negative": lambda n: str(-int(str(n)) - 1),
        "text": lambda n: f"Ü {n}",
    }
    name = names[ids]
    text = HEADER + "".join(
        f"{name(user)},{name(item)},{rating},{time}\n" for user, item, rating, time in lines
    )
    (tmp_path / "ratings.csv").write_text(text)
    found = answer(preprocess.main, "--data", tmp_path / "ratings.csv", "--dir", tmp_path)
    assert (found["n_users"], found["n_items"], found["n_interactions"]) == (60, 80, 840)
    users = pq.read_table(Path(found["path"]) / "users.parquet")["user_id"].to_pylist()
    assert {str(user) for user in users} == {name(number) for number in range(60)}


def test_damaged_processed_data(
    ray_here: None, ratings: Path, tuned: Tuned, tmp_path: Path
) -> None:
    prepared = answer(preprocess.main, "--data", ratings, "--dir", tmp_path)
    (damaged,) = Path(prepared["path"]).glob("train-*.parquet")
    content = bytearray(damaged.read_bytes())
    content[60] ^= 0xFF
    damaged.write_bytes(content)
    (tmp_path / "space.yaml").write_text("parameters: {model.embedding_dim: {low: 4, high: 8}}")
    store = ["--set", f"tracking.uri={tuned.uri}"]
    code, out, err = run(
        tune.main, "--space", tmp_path / "space.yaml", "--data", ratings, "--dir", tmp_path, *store
    )
    assert (code, out) == (2, "")
    assert f"error: {damaged}: must be a whole Parquet file, but is damaged (" in err
    assert "Delete its folder to prepare the data again." in err
    assert not (tmp_path / "studies").exists()


def test_a_model_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("{training: {max_epochs: 1}}")
    (tmp_path / "notes").write_text("")
    out = tmp_path / "notes" / "model"
    done = run(train.main, "--config", tmp_path / "c.yaml", "--out", out, "--dir", tmp_path)
    mistake = f"must be a folder that can be written, but got {out}"
    assert done == (
        2,
        "",
        f"error: --out: {mistake}, where {tmp_path / 'notes'} is a file. Give another one.\n",
    )


CHANGES = {
    "setting": (
        ["--set", "training.batch_size=64"],
        "training.batch_size: must stay 128, but got 64.",
    ),
    "data": (["--data", "other.csv"], "data (its fingerprint): must stay "),
    "domain": (
        ["--space", "other.yaml"],
        "search space, model.embedding_dim: must stay {'low': 4, ",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_resuming_with_other_settings(
    ray_here: None,
    tuned: Tuned,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tuned.folder / "studies", "studies")
    Path("other.csv").write_text(ratings_csv().replace("\n0,", "\n1000,"))
    Path("other.yaml").write_text(
        (tuned.folder / "space.yaml").read_text().replace("low: 4", "low: 5")
    )
    flags, message = CHANGES[name]
    code, out, err = run(
        tune.main, "--name", "first", "--resume", "--trials", 8, "--dir", ".", *flags
    )
    assert (code, out) == (2, "")
    assert err.startswith("error: --resume: ")
    assert message in err
    assert "Choose another study name." in err
    assert not Path("mlflow.db").exists()
