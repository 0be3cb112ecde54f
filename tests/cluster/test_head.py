"""Ray started by hand on a host: autoscaled nodes, another version of Ray, submitted jobs."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from recsys.cluster.autoscaling import HEAD_FILE
from recsys.config.files import dump_yaml
from tests.cluster.hosts import Host, hosts, why_not
from tests.cluster.on_hosts import GIVE_UP_SECONDS, ROOT, wait_until
from tests.small_search import SPACE, open_optuna, ratings_csv

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

START = "RAY_raylet_start_wait_time_s=200 ray start --head --object-store-memory=200000000"
HEAD_TYPE = "ray.head.default"  # the name that Ray's fake provider requires
OTHER_VERSION = (
    "import ray; ray.__version__ = '2.0.0'; from ray.scripts.scripts import main; main()"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder with the ratings and the space, for the host's results."""
    (tmp_path / "ratings.csv").write_text(ratings_csv())
    (tmp_path / "space.yaml").write_text(dump_yaml(SPACE))
    return tmp_path


@pytest.fixture
def head(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Host]:
    disks = tmp_path_factory.mktemp("disks")
    with hosts(
        disks, ["head"], [ROOT, Path(sys.prefix), Path(sys.base_prefix), disks, folder]
    ) as running:
        yield running["head"]


def run(head: Host, command: str) -> str:
    """Run a command in the project's folder on the host.

    Returns:
        Standard output and error together, then a line with the exit code.
    """
    return head.run(
        f"cd {ROOT}; export PATH={Path(sys.executable).parent}:$PATH; ({command}) 2>&1; echo $?",
        GIVE_UP_SECONDS,
    )


def tune(folder: Path, name: str, *flags: str) -> str:
    """Return the command of a search on the ratings, with results in the folder's `experiments`."""
    paths = f"--space {folder}/space.yaml --data {folder}/ratings.csv --dir {folder}/experiments"
    settings = "--max-epochs 20 --set training.batch_size=8 --set study.grace_period=20"
    settings += " --set training.patience=null"
    return f"python -m recsys.tune {paths} --name {name} {settings} {' '.join(flags)}"


def test_another_version_of_ray_is_named(head: Host, folder: Path) -> None:
    (folder / "other_version.py").write_text(OTHER_VERSION)
    run(head, START.replace("ray start", f"python {folder}/other_version.py start"))
    *_, error, code = run(head, tune(folder, "other", "--set cluster.address=auto")).splitlines()
    assert error.startswith(
        "error: cluster.address: must be a cluster of the same Ray and Python, "
        "but got 'auto' (Version mismatch: "
    )
    assert "The cluster was started with: Ray: 2.0.0" in error
    assert error.endswith("Install the same versions on both.")
    assert code == "2"


def autoscaling(n_workers: int) -> dict[str, Any]:
    """Return the file that `ray up` would write to a head without CPUs.

    The head can add workers with one CPU, which are further raylets on the head's machine.
    """
    nodes = {
        HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1, "object_store_memory": 10**8},
            "node_config": {},
            "max_workers": n_workers,
        },
    }
    # Nodes on one machine have the same address, and Ray must not log in to set them up.
    alone = {
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    provider = {"type": "fake_multinode", "head_node_id": FAKE_HEAD_NODE_ID, **alone}
    lists = (
        "cluster_synced_files",
        "rsync_exclude",
        "rsync_filter",
        "initialization_commands",
        "setup_commands",
    )
    commands = (
        "head_setup_commands",
        "worker_setup_commands",
        "head_start_ray_commands",
        "worker_start_ray_commands",
    )
    return {
        "cluster_name": "autoscaled",
        "max_workers": n_workers,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 1.0,
        "provider": provider,
        "available_node_types": nodes,
        "head_node_type": HEAD_TYPE,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in (*lists, *commands)},
    }


def test_the_cluster_adds_nodes_for_a_search_and_removes_them_after_it(
    head: Host, folder: Path
) -> None:
    (folder / HEAD_FILE).write_text(json.dumps(autoscaling(n_workers=2)))
    run(head, f"cp {folder}/{HEAD_FILE} ~/")
    scaling = "AUTOSCALER_UPDATE_INTERVAL_S=1 RAY_FAKE_CLUSTER=1 RAY_enable_autoscaler_v2=0"
    identity = f"RAY_OVERRIDE_NODE_ID_FOR_TESTING={FAKE_HEAD_NODE_ID}"
    run(head, f"{scaling} {identity} {START} --num-cpus=0 --autoscaling-config=$HOME/{HEAD_FILE}")

    def n_workers() -> int:
        return len(head.processes("/raylet/raylet ")) - 1

    *_, error, code = run(head, f"RAY_ADDRESS=auto {tune(folder, 'large', '--cpu 2')}").splitlines()
    assert "error: --cpu: must be at most what one node has, 1, but got 2." in error
    assert (code, n_workers()) == ("2", 0)
    paths = f"--data {folder}/ratings.csv --dir {folder}/experiments"
    train = f"python -m recsys.train --config configs/nn_inner_product.yaml {paths}"
    *_, error, code = run(head, f"RAY_ADDRESS=auto {train} --set resources.gpu=1").splitlines()
    assert "error: resources.gpu: must be at most what one node has, 0, but got 1." in error
    assert (code, n_workers()) == ("2", 0)

    output = folder / "output.txt"
    run(
        head,
        f"RAY_ADDRESS=auto nohup {tune(folder, 'scaled', '--trials 6 --json')} > {output} 2>&1 &",
    )
    wait_until(lambda: "waits for the cluster to start one" in output.read_text())
    assert not list(folder.glob("experiments/processed/*/manifest.json"))
    wait_until(lambda: n_workers() == 2)
    wait_until(lambda: "\n{" in output.read_text())
    answer = json.loads(
        next(line for line in output.read_text().splitlines() if line.startswith("{"))
    )
    assert [trial["state"] for trial in answer["trials"]] == ["complete"] * 6
    assert answer["concurrency"] == 2
    wait_until(lambda: n_workers() == 0)


@pytest.mark.skipif(
    importlib.util.find_spec("aiohttp_cors") is None,
    reason="ray job submit needs the extra cluster",
)
def test_a_search_as_a_job_that_is_stopped_and_resumed(head: Host, folder: Path) -> None:
    run(head, f"RAY_JOB_STOP_WAIT_TIME_S=60 {START} --num-cpus=2")
    study, flags = (
        folder / "experiments/studies/job",
        "--trials 4 --max-epochs 60 --set study.grace_period=60 --json",
    )
    run(head, f"ray job submit --no-wait --submission-id first -- {tune(folder, 'job', flags)}")
    wait_until(
        lambda: (
            study.exists() and any(trial.intermediate_values for trial in open_optuna(study).trials)
        )
    )
    run(head, "ray job stop first")
    log = run(head, "ray job logs first")
    assert (
        "Interrupted. The study is stored; "
        "resume it with: python -m recsys.tune --name job --resume"
    ) in log
    assert "was stopped" in run(head, "ray job status first")
    flags = f"--name job --resume --dir {folder}/experiments --max-epochs 60 --json"
    resume = f"python -m recsys.tune {flags}"
    *log_lines, code = run(head, f"ray job submit -- {resume}").splitlines()
    assert code == "0"
    answer = json.loads(next(line for line in log_lines if line.startswith("{")))
    assert [trial["state"] for trial in answer["trials"]] == ["complete"] * 4
    assert all(trial["epochs"] == 60 for trial in answer["trials"])
