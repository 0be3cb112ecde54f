"""`ray up` on hosts, one search over both workers, and a power cut in the middle of it."""

import json
from pathlib import Path

import optuna
import pytest

from recsys.config_files import dump_yaml

from ..small_search import SPACE, logged_steps, logged_trials, open_optuna, ratings_csv
from .hosts import why_not
from .on_hosts import GIVE_UP_SECONDS, cluster_up, wait_until

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

N_TRIALS, N_EPOCHS = 10, 40


def trials_of(study: Path) -> list[optuna.trial.FrozenTrial]:
    return open_optuna(study).trials if study.exists() else []


def nodes_of(trial: optuna.trial.FrozenTrial) -> list[str]:
    """Where it ran, in order."""
    return list(trial.user_attrs.get("nodes", {}).values())


def test_a_search_on_hosts_survives_a_power_cut(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "ratings.csv").write_text(ratings_csv())
    (shared / "space.yaml").write_text(dump_yaml(SPACE))
    study = shared / "studies" / "s"
    with cluster_up(tmp_path, shared) as cluster:
        head, first, second = (cluster.hosts[name] for name in ("head", "w1", "w2"))
        flags = (
            f"--name s --trials {N_TRIALS} --max-epochs {N_EPOCHS} --set training.batch_size=8 --set study.grace_period=9 --json"
        )
        line = f"python -m recsys.tune --space experiments/space.yaml --data experiments/ratings.csv {flags}"
        search = cluster.start(f"cd recsys && {line} > experiments/answer.json", tmp_path / "search.txt")

        def both_work() -> bool:
            assert search.poll() is None, (tmp_path / "search.txt").read_text()
            running = [trial for trial in trials_of(study) if trial.state.name == "RUNNING"]
            return {first.address, second.address} == {node for trial in running for node in nodes_of(trial)}

        wait_until(both_work)
        first.power_off()
        before = trials_of(study)
        code = search.wait(timeout=GIVE_UP_SECONDS)
        assert code == 0, (tmp_path / "search.txt").read_text()
        cluster.ray("down", "-y", str(cluster.file))
        assert head.processes("raylet") == []

    answer = json.loads((shared / "answer.json").read_text())
    assert answer["counts"]["complete"] + answer["counts"]["pruned"] == N_TRIALS
    assert answer["concurrency"] == 4
    cut = {trial.number for trial in before if trial.state.name == "RUNNING" and first.address in nodes_of(trial)}
    assert cut
    trials = trials_of(study)
    assert [trial.number for trial in trials] == list(range(N_TRIALS))
    for trial, told in zip(trials, answer["trials"], strict=True):
        assert sorted(trial.intermediate_values) == list(range(1, max(trial.intermediate_values) + 1))
        assert told["nodes"] == trial.user_attrs["nodes"]
        assert set(nodes_of(trial)) <= {first.address, second.address}
        if trial.number in cut:
            assert nodes_of(trial) == [first.address, second.address]
    runs = logged_trials(f"sqlite:///{shared / 'mlflow.db'}", "recsys")
    assert [int(run.data.tags["trial"]) for run in runs] == list(range(N_TRIALS))
    assert {run.info.status for run in runs} == {"FINISHED"}
    for trial, run in zip(trials, runs, strict=True):
        assert logged_steps(f"sqlite:///{shared / 'mlflow.db'}", run, "val_ndcg_at_10") == sorted(trial.intermediate_values)
