"""A run on a local Ray cluster of two nodes: stopped, gone on with, one node killed; and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_recipes import small_recipe

from tdcompress.bench.host import read_host
from tdcompress.cli import main
from tdcompress.commands import run
from tdcompress.locks import holder

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install '.[cluster]'")
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 400.0

# The demo's sweep with a smaller network and one share: three trainings, long enough to be stopped, and killed, in the middle.
RECIPE = (ROOT / "pipelines" / "digits.toml").read_text(encoding="utf-8")
for before, after in {
    'name = "digits_cnn"': 'name = "digits_cnn"\nwidth = 4\nhidden = 8',
    "epochs = 45": "epochs = 30\nthreads = 1",
    "max_accuracy_drop = 0.03": "max_accuracy_drop = 1.0",
    'budget = "quick"': 'budget = "none"',
    "[0.0, 0.5, 0.8, 0.9]": "[0.5]",
}.items():
    assert RECIPE.count(before) == 1
    RECIPE = RECIPE.replace(before, after)
STAGES = 16
MEASURED = small_recipe("measured", '[sparsity]\nmethod = "none"\n[train]\nepochs = 0\n', bench="quick")
TIMES = {"seconds", "seconds_total", "train_seconds", "images_per_second", "created", "latency"}


@contextmanager
def driver(folder, *arguments, **environment):
    """``tdcompress run`` in a process of its own."""
    command = [sys.executable, "-m", "tdcompress", "run", *arguments, "--device", "cpu"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def result(process):
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def until(what, process=None):
    """Wait for something to be true; returns it."""
    end = time.monotonic() + PATIENCE
    while not (found := what()):
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    memory = 80 * 2**20
    quick = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 1000,
        "health_check_failure_threshold": 3,
        "worker_niceness": 0,
    }
    head = {"num_cpus": 1, "object_store_memory": memory, "include_dashboard": False, "_system_config": quick}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.second = made.add_node(num_cpus=1, object_store_memory=memory)
    yield made
    made.shutdown()


def epochs(partial):
    path = partial / "scratch/metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def owner(root, partial):
    """The process that makes a training, or None."""
    said = holder(root / ".locks" / f"train-{partial.name.removesuffix('.partial')}")
    return None if said is None else int(said.split()[1])


def parent(process):
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


@needs_ray
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the node of a process by /proc")
def test_a_sweep_that_is_stopped_and_loses_a_node_comes_to_what_one_process_makes(cluster, tmp_path):
    (tmp_path / "digits.toml").write_text(RECIPE)
    root = tmp_path / "artifacts"
    trainings = lambda: sorted((root / "stages/train").glob("*.partial"))  # noqa: E731
    on_cluster = ("digits.toml", "--cluster", "ray")

    with driver(tmp_path, *on_cluster, RAY_ADDRESS=cluster.address) as process:
        until(lambda: len(trainings()) >= 2 and min(map(epochs, trainings())) >= 10, process)  # both at the same time
        assert len(trainings()) == 2  # the third waits for a CPU, also while those two talk to the driver
        process.send_signal(signal.SIGTERM)
        code, _, err = result(process)
    assert code == 143, err
    assert "run the same command again" in err
    assert all(list(partial.glob("scratch/checkpoints/step-*.json")) for partial in trainings())
    before = {partial.name: epochs(partial) for partial in trainings()}

    raylet = cluster.second.all_processes["raylet"][0].process.pid
    with driver(tmp_path, *on_cluster, RAY_ADDRESS=cluster.address) as process:
        victim = lambda: [  # noqa: E731
            partial
            for partial in trainings()
            if epochs(partial) > before[partial.name] + 1 and (found := owner(root, partial)) and parent(found) == raylet
        ]
        until(victim, process)
        cluster.remove_node(cluster.second, allow_graceful=False)
        code, out, err = result(process)
    assert code == 0, err
    assert "lost  train" in out
    assert "raylet" not in out + err  # Ray's own words on the node that is gone
    assert f"{STAGES} stages were run" in out, out

    with driver(tmp_path, "digits.toml", "--artifacts", "alone") as process:
        code, alone, err = result(process)
    assert code == 0, err
    assert f"{STAGES} stages were run" in alone, alone
    made = {path.relative_to(root).as_posix() for path in root.glob("stages/*/*")}
    assert made == {path.relative_to(tmp_path / "alone").as_posix() for path in (tmp_path / "alone").glob("stages/*/*")}
    reports = [json.loads((folder / "digits/report.json").read_text()) for folder in (root, tmp_path / "alone")]
    assert without_times(reports[0]) == without_times(reports[1])
    for path in root.glob("stages/train/*/model.safetensors"):
        assert path.read_bytes() == (tmp_path / "alone" / path.relative_to(root)).read_bytes()

    (tmp_path / "measured.toml").write_text(MEASURED)
    with driver(tmp_path, "measured.toml", *on_cluster[1:], RAY_ADDRESS=cluster.address) as process:
        code, out, err = result(process)
    assert code == 0, err
    here = read_host().id
    manifests = [json.loads(path.read_text()) for path in root.glob("stages/bench/*/manifest.json")]
    assert [(made["settings"]["host"], list(made["record"]["hosts"])) for made in manifests] == [(here, [here])]


def test_a_run_without_a_cluster_does_not_import_ray(tmp_path):
    recipe = tmp_path / "measured.toml"
    recipe.write_text(MEASURED.replace('"quick"', '"none"'))
    program = "import sys; from tdcompress.cli import main; print(main(sys.argv[1:]), 'ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, "run", str(recipe), "--artifacts", str(tmp_path / "artifacts")],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


def test_a_cluster_without_ray_says_what_to_install(command, without, tmp_path):
    (tmp_path / "measured.toml").write_text(MEASURED)
    done = command("run", "measured.toml", "--cluster", "ray", env=without("ray"), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "tdcompress: this needs ray: pip install '.[cluster]' in tdcompress's checkout\n"


def test_a_ray_that_is_there_and_broken_is_one_line(command, tmp_path):
    (tmp_path / "measured.toml").write_text(MEASURED)
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "ray.py").write_text("raise ImportError('libray.so: no such file')")
    done = command(
        "run", "measured.toml", "--cluster", "ray", cwd=tmp_path,
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path / "packages"), str(ROOT)])},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "tdcompress: ray is installed here and cannot be imported (libray.so: no such file): install it again\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--cluster", "ray", "--only", "train"], "leave --only out"),
        (["--bench-node", "b"], "without --cluster"),
        (["--cluster", "10.0.0.1:6379"], "neither ray nor ray://HOST:PORT"),
        (["--cluster", "ray://host"], "neither ray nor ray://HOST:PORT"),
        (["--cluster", "ray", "--together", "2"], "add --only train"),
    ],
)
def test_what_does_not_go_with_a_cluster_is_refused(tmp_path, capsys, given, said):
    (tmp_path / "measured.toml").write_text(MEASURED)
    try:
        code = main(["run", str(tmp_path / "measured.toml"), *given])
    except SystemExit as stop:  # argparse's
        code = stop.code
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "artifacts").exists()


def test_of_torchruns_processes_the_first_refuses(tmp_path, capsys, monkeypatch):
    (tmp_path / "measured.toml").write_text(MEASURED)
    monkeypatch.setattr(run, "_FIRST_SAYS_SECONDS", 0.0)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    told = []
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        for given in (["measured.toml", "--cluster", "ray"], ["no-such-recipe"]):
            assert main(["run", *given, "--artifacts", str(tmp_path / "artifacts")]) == (2 if rank == "0" else 1)
            told.append(capsys.readouterr().err)
    assert told[0] == ("tdcompress: --cluster under torchrun: each process would make the whole run; start it without torchrun\n")
    assert "no-such-recipe: no such" in told[1]
    assert told[2:] == ["", ""]
