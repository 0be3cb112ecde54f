"""`ray up` on simulated hosts, and searches that lose hosts or their driver while they run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from recsys.config.files import dump_yaml
from recsys.serving import saved_model
from tests.cluster.hosts import why_not
from tests.cluster.on_hosts import GIVE_UP_SECONDS, S3_PORT, Cluster, cluster_up, wait_until
from tests.small_search import (
    N_ITEMS,
    N_USERS,
    SPACE,
    logged_steps,
    logged_trials,
    open_optuna,
    ratings_csv,
)

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

N_TRIALS, N_EPOCHS = 8, 30


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all hosts see."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "ratings.csv").write_text(ratings_csv())
    (folder / "space.yaml").write_text(dump_yaml(SPACE))
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Cluster]:
    with cluster_up(tmp_path_factory.mktemp("hosts"), shared) as up:
        yield up


def command(name: str, *flags: object) -> str:
    """Return the README's command for a study, with its JSON output in a file of that name."""
    limits = f"--trials {N_TRIALS} --max-epochs {N_EPOCHS}"
    settings = "--set training.batch_size=8 --set study.grace_period=20"
    settings += " --set training.patience=null"
    line = f"--data experiments/ratings.csv --name {name} {limits} {settings} --json"
    further = " ".join(map(str, flags))
    return f"cd recsys && python -m recsys.tune {line} {further} > experiments/{name}.json"


def trials_of(study: Path) -> list[optuna.trial.FrozenTrial]:
    return open_optuna(study).trials if study.exists() else []


def nodes_of(trial: optuna.trial.FrozenTrial) -> list[str]:
    """Return the nodes that the trial ran on, in order."""
    return list(trial.user_attrs.get("nodes", {}).values())


def check_whole(shared: Path, name: str) -> dict[str, Any]:
    """Check that output, record and MLflow have every trial and epoch once, and none as running.

    Returns:
        The JSON output.
    """
    answer: dict[str, Any] = json.loads((shared / f"{name}.json").read_text(encoding="utf-8"))
    trials, uri = trials_of(shared / "studies" / name), f"sqlite:///{shared / 'mlflow.db'}"
    assert [trial["id"] for trial in answer["trials"]] == [
        str(number) for number in range(N_TRIALS)
    ]
    assert {trial["state"] for trial in answer["trials"]} <= {"complete", "pruned"}
    assert [trial.number for trial in trials] == list(range(N_TRIALS))
    runs = [run for run in logged_trials(uri, "recsys") if run.data.tags["study"] == name]
    assert [int(run.data.tags["trial"]) for run in runs] == list(range(N_TRIALS))
    assert {run.info.status for run in runs} == {"FINISHED"}
    for trial, printed, run in zip(trials, answer["trials"], runs, strict=True):
        assert sorted(trial.intermediate_values) == list(range(1, printed["epochs"] + 1))
        assert logged_steps(uri, run, "val_ndcg_at_10") == sorted(trial.intermediate_values)
        assert printed["nodes"] == trial.user_attrs["nodes"]
    return answer


def test_a_folder_that_only_the_head_has_is_refused(cluster: Cluster, shared: Path) -> None:
    output = shared / "alone.txt"
    data = "--space experiments/space.yaml --data experiments/ratings.csv"
    search = cluster.start(f"cd recsys && python -m recsys.tune {data} --dir /tmp/alone", output)
    assert search.wait(timeout=GIVE_UP_SECONDS) != 0
    assert (
        "error: --dir: must be seen by all nodes, but got /tmp/alone, which is not on w"
        in output.read_text()
    )
    assert "studies" not in cluster.hosts["head"].run("ls /tmp/alone")


def test_the_steps_of_the_readme(cluster: Cluster, shared: Path, tmp_path: Path) -> None:
    small = "--space experiments/space.yaml --data experiments/ratings.csv --trials 4"
    (in_background,) = cluster.step(
        "search in the background", ("--space search_spaces/ncf.yaml", small)
    )
    cluster.run(in_background)
    attach, status = cluster.step("watch the search")
    cluster.watch(attach, "/4 trials")
    assert "4.0 CPU" in cluster.run(status)
    wait_until((shared / "studies/first/best.yaml").exists)

    (train,) = cluster.step("train the best trial")
    cluster.run(train)
    (fetch,) = cluster.step("fetch the model", (" first", f" {tmp_path / 'first'}"))
    cluster.run(fetch)
    model = saved_model.load(tmp_path / "first")
    assert (len(model.user_ids), len(model.item_ids)) == (N_USERS, N_ITEMS)

    (see,) = cluster.step("MLflow at localhost:5000")
    tunnel = cluster.begin(see, tmp_path / "mlflow.txt")
    wait_until(lambda: "Application startup complete" in (tmp_path / "mlflow.txt").read_text())
    runs = logged_trials("http://localhost:5000", "recsys")
    assert [(run.data.tags["study"], run.data.tags["trial"]) for run in runs] == [
        ("first", str(number)) for number in range(4)
    ]
    cluster.hosts["head"].kill("mlflow ui")
    tunnel.wait(timeout=GIVE_UP_SECONDS)


S3 = """
import boto3
client = boto3.client("s3")
client.create_bucket(Bucket="team")
found = client.list_objects_v2(Bucket="team").get("Contents", [])
print(*(entry["Key"] for entry in found), sep="\\n")
"""
"""Creates the bucket unless it exists, and prints its keys."""


def test_a_search_on_hosts_that_share_s3_alone(
    cluster: Cluster, shared: Path, tmp_path: Path
) -> None:
    head, script, log, output = (
        cluster.hosts["head"],
        shared / "s3.py",
        shared / "server.txt",
        shared / "s3.txt",
    )
    script.write_text(S3)
    cluster.start(f"python -m moto.server -H 0.0.0.0 -p {S3_PORT}", log)
    wait_until(lambda: "Running on" in log.read_text())
    head.run(f"python {script}")
    flags = (
        "--space experiments/space.yaml --dir s3://team/ncf",
        f"--set tracking.uri=sqlite:////tmp/runs.db --max-epochs {N_EPOCHS}",
        "--set study.grace_period=30",
    )
    search = cluster.start(command("s3", *flags), output)
    assert search.wait(timeout=GIVE_UP_SECONDS) == 0, output.read_text()

    cluster.ray(
        "rsync-down",
        str(cluster.file),
        "~/recsys/experiments/s3.json",
        str(tmp_path / "answer.json"),
    )
    answer = json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))
    assert answer["best"]["config"] == "s3://team/ncf/studies/s3/best.yaml"
    assert [(trial["state"], trial["epochs"]) for trial in answer["trials"]] == [
        ("complete", N_EPOCHS)
    ] * N_TRIALS
    workers = {host.address for name, host in cluster.hosts.items() if name != "head"}
    assert {node for trial in answer["trials"] for node in trial["nodes"].values()} == workers
    stored = head.run(f"python {script}").splitlines()
    ranked = sorted(answer["trials"], key=lambda trial: -trial["value"])
    kept = {f"ncf/studies/s3/trials/{trial['id']}/weights.safetensors" for trial in ranked[:3]}
    assert {key for key in stored if "/trials/" in key and not key.endswith("/")} == kept
    assert not (shared / "studies" / "s3").exists()
    head.kill("moto.server")


def test_a_search_survives_a_power_cut_a_cut_cable_and_a_killed_raylet(
    cluster: Cluster, shared: Path
) -> None:
    study, output = shared / "studies" / "lost", shared / "lost.txt"
    unplugged, off, killed, intact = (cluster.hosts[f"w{number}"] for number in (1, 2, 3, 4))
    search = cluster.start(command("lost", "--space experiments/space.yaml"), output)

    def working() -> set[str]:
        assert search.poll() is None, output.read_text()
        running = [trial for trial in trials_of(study) if trial.state.name == "RUNNING"]
        return {node for trial in running for node in nodes_of(trial)}

    wait_until(lambda: len(working()) == 4)
    unplugged.unplug()
    off.power_off()
    killed.kill("/raylet ")
    assert search.wait(timeout=GIVE_UP_SECONDS) == 0, output.read_text()

    assert check_whole(shared, "lost")["concurrency"] == 4
    lost, alive = {unplugged.address, off.address}, {killed.address, intact.address}
    moved = [nodes_of(trial) for trial in trials_of(study) if len(nodes_of(trial)) > 1]
    assert all({nodes[0]} <= lost | {killed.address} and set(nodes[1:]) <= alive for nodes in moved)
    assert len(moved) >= 2  # the trial of a lost host may just have ended
    # The autoscaler restarts Ray on the hosts that it reaches by ssh.
    wait_until(lambda: cluster.alive() == {cluster.hosts["head"].address, *alive})


def test_a_search_resumes_after_its_driver_was_killed(cluster: Cluster, shared: Path) -> None:
    study, output = shared / "studies" / "driven", shared / "driven.txt"
    search = cluster.start(command("driven", "--space experiments/space.yaml"), output)
    wait_until(lambda: sum(len(trial.intermediate_values) for trial in trials_of(study)) >= 5)
    cluster.hosts["head"].kill("recsys.tune --data")
    assert search.wait(timeout=GIVE_UP_SECONDS) != 0
    before = trials_of(study)
    assert (
        cluster.start(command("driven", "--resume"), output).wait(timeout=GIVE_UP_SECONDS) == 0
    ), output.read_text()
    check_whole(shared, "driven")
    after = trials_of(study)
    for trial in before:
        assert trial.intermediate_values.items() <= after[trial.number].intermediate_values.items()
        assert not trial.state.is_finished() or trial == after[trial.number]
