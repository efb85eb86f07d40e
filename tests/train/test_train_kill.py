"""A process that is killed or asked to end: what it leaves is enough to end with the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# A program that runs the training of conftest.py; in a subprocess, so that it can be killed.
PROGRAM = """
import signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import conftest as small
from tdcompress.errors import InterruptedRun

received = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: received.append(number))

def progress(p):
    print("step", p.step, flush=True)
    time.sleep(0.02)

try:
    small.run(Path(sys.argv[1]), progress=progress, should_stop=lambda: received[0] if received else None,
              checkpoint_seconds=float(sys.argv[2]))
except InterruptedRun as stop:
    print(stop, flush=True)
    sys.exit(stop.exit_code)
"""


def _start(folder: Path, checkpoint_seconds: float) -> subprocess.Popen[str]:
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    arguments = [sys.executable, "-c", program, str(folder), str(checkpoint_seconds)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.split() == ["step", str(step)]:
            return
    raise AssertionError(f"the program ended before step {step}")


def test_a_killed_process_goes_on_with_the_same_bits(small, tmp_path: Path) -> None:
    whole, resumed = small.conv_net(), small.conv_net(seed=3)
    small.run(tmp_path / "whole", whole)
    folder = tmp_path / "killed"
    with _start(folder, checkpoint_seconds=0.0) as process:  # a checkpoint after every step
        _wait_for_step(process, 9)
        time.sleep(0.01)
        process.kill()
    result = small.run(folder, resumed)
    assert result.resumed_from_step >= 8
    assert small.same_bits(whole, resumed)
    assert small.timeless(tmp_path / "whole") == small.timeless(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_within_one_step(small, tmp_path: Path, number: signal.Signals) -> None:
    whole, resumed = small.conv_net(), small.conv_net(seed=3)
    small.run(tmp_path / "whole", whole)
    with _start(tmp_path / "stopped", checkpoint_seconds=1e9) as process:
        _wait_for_step(process, 8)
        process.send_signal(number)
        assert process.stdout is not None
        rest = process.stdout.read()
    assert process.returncode == 128 + number
    assert "stopped after step" in rest
    result = small.run(tmp_path / "stopped", resumed)
    assert result.resumed_from_step in (8, 9)
    assert small.same_bits(whole, resumed)
    assert small.timeless(tmp_path / "whole") == small.timeless(tmp_path / "stopped")
