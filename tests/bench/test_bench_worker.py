import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tdcompress.bench import launch
from tdcompress.bench.job import PairsJob, PairsResult, ProbeJob, ProbeResult, Target
from tdcompress.bench.launch import run_job
from tdcompress.errors import InterruptedRun, ModelError, TdcompressError, UnsupportedError

CPU = "CPUExecutionProvider"


@pytest.fixture
def inputs_path(tmp_path: Path) -> str:
    path = tmp_path / "inputs.npz"
    np.savez(path, np.ones((1, 4), np.float32))
    return str(path)


def probe(path: Path, inputs_path: str, *, backend: str = "onnxruntime", provider: str = CPU) -> ProbeResult:
    target = Target(path=str(path), backend=backend, provider=provider)
    return run_job(ProbeJob(target=target, inputs_path=inputs_path, input_names=("input",), threads=1), ProbeResult)


def pairs_job(path: Path, inputs_path: str, *, backend: str = "null", seconds: float = 0.0, maximum: int = 30) -> PairsJob:
    target = Target(path=str(path), backend=backend, provider=CPU)
    return PairsJob(
        baseline=target,
        candidates=(target, target),
        inputs_path=inputs_path,
        input_names=("input",),
        threads=1,
        seed=(0, 1),
        minimum_pairs=20,
        maximum_pairs=maximum,
        seconds=seconds,
        warm_up_seconds=0.05,
        single_calls=10,
        parent=os.getpid(),
    )


def test_probe_says_what_ran_and_what_memory_it_took(make_model, inputs_path):
    result = probe(make_model(), inputs_path)
    assert result.provider == CPU
    assert result.options["intra_op_num_threads"] == "1"
    assert result.options["session.set_denormal_as_zero"] == "0"
    assert result.options["nodes"] in ("", f"2 on {CPU}", f"3 on {CPU}")  # Relu may be fused; old runtimes do not tell
    assert result.notes == ()
    assert 20 * 2**20 < result.peak_rss_bytes < 500 * 2**20


def test_peak_memory_is_the_workers_own_not_its_parents(make_model, inputs_path):
    ballast = np.ones(40 * 2**20)  # 320 MiB in this process
    assert probe(make_model(), inputs_path, backend="null").peak_rss_bytes < 200 * 2**20
    assert ballast[-1] == 1


@pytest.mark.parametrize("backend", ["null", "onnxruntime"])
def test_a_fresh_process_times_pairs_of_every_candidate(make_model, inputs_path, backend):
    result = run_job(pairs_job(make_model(), inputs_path, backend=backend), PairsResult)
    assert len(result.files) == 2
    for times in result.files:
        assert len(times.candidate_ns) == len(times.baseline_ns) == 20
        assert min(times.candidate_ns) > 0
        assert min(times.baseline_calls, times.candidate_calls) > 1  # both are far below 100 us
        assert len(times.single_ns) == 10
        assert times.load_ns > 0
        assert times.first_run_ns > 0


def test_errors_of_the_worker_arrive_with_their_type(make_model, inputs_path, tmp_path):
    with pytest.raises(UnsupportedError, match="backend 'magic' is unknown; choose one of onnxruntime, engine"):
        probe(make_model(), inputs_path, backend="magic")
    with pytest.raises(ModelError, match=r"missing\.onnx: onnxruntime cannot load it"):
        probe(tmp_path / "missing.onnx", inputs_path)
    with pytest.raises(ModelError, match="onnxruntime fails on the inputs of this benchmark"):
        probe(make_model(shape=("batch", 4), input_name="other"), inputs_path)


def test_a_provider_that_is_missing_or_falls_back_is_an_error(make_model, inputs_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    with pytest.raises(UnsupportedError, match=r"has no provider 'NoSuchExecutionProvider'; it has .*CPUExecutionProvider"):
        probe(make_model(), inputs_path, provider="NoSuchExecutionProvider")
    with pytest.raises(UnsupportedError, match="provider 'CUDAExecutionProvider' is onnxruntime's"):
        probe(make_model(), inputs_path, backend="null", provider="CUDAExecutionProvider")
    # Azure's provider is listed first in its session and yet runs no node: every node falls back to the CPU.
    if "AzureExecutionProvider" in onnxruntime.get_available_providers():
        with pytest.raises(UnsupportedError, match="placed no node on AzureExecutionProvider"):
            probe(make_model(), inputs_path, provider="AzureExecutionProvider")


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        (
            "import sys; print('first\\nlast words', file=sys.stderr); sys.exit(9)",
            TdcompressError,
            "ended with status 9: last words$",
        ),
        ("import sys; sys.exit(4)", TdcompressError, "ended with status 4: it printed nothing$"),
        ("import os; os.kill(os.getpid(), 11)", TdcompressError, "was killed by SIGSEGV: it printed nothing$"),
        ("import os; os.kill(os.getpid(), 9)", TdcompressError, r"was killed by SIGKILL \(out of memory\?\)"),
        ("import os; os.kill(os.getpid(), 15)", InterruptedRun, "interrupted and kept nothing"),
        ("print('this is not JSON')", TdcompressError, "answered with something else than a result"),
    ],
)
def test_a_worker_that_dies_is_an_error_with_its_last_line(monkeypatch, make_model, inputs_path, program, error, message):
    monkeypatch.setattr(launch, "COMMAND", (sys.executable, "-c", program))
    with pytest.raises(error, match=message):
        probe(make_model(), inputs_path)


def test_a_worker_stopped_by_ctrl_c_keeps_the_exit_status(monkeypatch, make_model, inputs_path):
    program = "import os, signal; signal.signal(2, signal.SIG_DFL); os.kill(os.getpid(), 2)"
    monkeypatch.setattr(launch, "COMMAND", (sys.executable, "-c", program))
    with pytest.raises(InterruptedRun) as caught:
        probe(make_model(), inputs_path)
    assert caught.value.exit_code == 130


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker in /proc")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_whoever_waits_for_it(make_model, inputs_path, stop):
    job = pairs_job(make_model(), inputs_path, seconds=600.0, maximum=10**9)
    program = (
        "import os, dataclasses, signal\n"
        "from tdcompress.bench.job import PairsJob, PairsResult, Target\n"
        "from tdcompress.bench.launch import run_job\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs inherit it ignored
        f"run_job(dataclasses.replace({job!r}, parent=os.getpid()), PairsResult)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) as parent:
        try:
            worker = wait_for(lambda: working_child(parent.pid))
            parent.send_signal(stop)
            complaint = parent.communicate(timeout=20)[1]
            wait_for(lambda: not is_alive(worker))
        finally:
            parent.kill()
    if stop == signal.SIGINT:
        assert complaint.strip().endswith("KeyboardInterrupt")


def working_child(pid: int) -> int | None:
    """The child of a process, once it has used the processor long enough to be timing."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = children.read_text().split() if children.exists() else []
    if not found:
        return None
    ticks = int(Path(f"/proc/{found[0]}/stat").read_text().rsplit(")", 1)[1].split()[11])
    return int(found[0]) if ticks / os.sysconf("SC_CLK_TCK") > 0.5 else None


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return re.search(r"^State:\s+Z", status, re.MULTILINE) is None


def wait_for(condition, seconds: float = 20.0):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return result
