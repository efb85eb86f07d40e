"""DeepSparse under an interpreter of its own; here one whose `deepsparse` is a stand-in, with the same calls."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tdcompress.bench.backends import create_backend
from tdcompress.bench.backends.base import CPU_PROVIDER
from tdcompress.bench.backends.deepsparse import PYTHON
from tdcompress.bench.worker import peak_rss_bytes
from tdcompress.errors import ModelError, TdcompressError, UnsupportedError

STAND_IN = """
import os, numpy as np
print("a library that talks")
__version__ = "1.8.0"
class Engine:
    def __init__(self, model, batch_size, num_cores):
        if "broken" in model:
            raise RuntimeError("no such\\n  layer")
        self.fraction_of_supported_ops = 0.5 if "half" in model else 1.0
        self.model, self.batch_size, self.num_cores = model, batch_size, num_cores
    def run(self, inputs):
        if "dies" in self.model:
            os._exit(7)
        if "fails" in self.model:
            raise ValueError("wrong shape")
        with open(self.model + ".calls", "a") as file:
            file.write(f"{self.batch_size} {self.num_cores} {[a.shape for a in inputs]} {inputs[0].sum():g}\\n")
        return inputs
"""
INPUTS = {"input": np.ones((2, 4), np.float32), "other": np.ones((2, 1), np.float32)}


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """A Python that finds the stand-in, though PYTHONPATH of this process is kept from it."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "deepsparse.py").write_text(STAND_IN)
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv(PYTHON, str(wrapper))
    return wrapper


def opened(path: Path):
    return create_backend("deepsparse", CPU_PROVIDER, 3).open(path, INPUTS)


def test_a_model_runs_in_the_child(interpreter, tmp_path):
    session = opened(tmp_path / "m.onnx")
    for _ in range(3):
        session.run()
    assert (tmp_path / "m.onnx.calls").read_text() == "2 3 [(2, 4), (2, 1)] 8\n" * 3
    assert (session.provider, session.options["num_cores"], session.options["batch_size"]) == ("CPU", "3", "2")
    assert session.options["version"] == "1.8.0"
    assert float(session.options["round_trip_us"]) > 0
    assert "a process of its own" in session.notes[0]
    assert session.pid != os.getpid()
    assert peak_rss_bytes(session.pid) > 0


def test_the_child_ends_with_its_session(interpreter, tmp_path):
    session = opened(tmp_path / "m.onnx")
    pid = session.pid
    del session
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("it is still there")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, f"{PYTHON} names none: python3.11 -m venv"),
        ("/no/such/python", "does not start .No such file or directory.: python3.11 -m venv"),
        ("/bin/false", "has no deepsparse .its process ended with status 1."),
        (sys.executable, "has no deepsparse .ModuleNotFoundError: No module named 'deepsparse'.: python3.11 -m venv"),
    ],
)
def test_what_is_missing_is_one_line(monkeypatch, value, said):
    monkeypatch.delenv(PYTHON, raising=False) if value is None else monkeypatch.setenv(PYTHON, value)
    with pytest.raises(UnsupportedError, match=said) as caught:
        create_backend("deepsparse", CPU_PROVIDER, 1)
    assert "\n" not in str(caught.value)


def test_what_the_child_cannot_do_is_said(interpreter, tmp_path):
    with pytest.raises(ModelError, match=r"broken\.onnx: deepsparse cannot load it: RuntimeError: no such layer"):
        opened(tmp_path / "broken.onnx")
    with pytest.raises(UnsupportedError, match="runs only 50% of the operators itself"):
        opened(tmp_path / "half.onnx")
    with pytest.raises(TdcompressError, match="deepsparse: ValueError: wrong shape"):
        opened(tmp_path / "fails.onnx").run()
    with pytest.raises(TdcompressError, match="deepsparse: its process ended with status 7"):
        opened(tmp_path / "dies.onnx").run()


def test_a_backend_opens_more_than_one_model(interpreter, tmp_path):
    backend = create_backend("deepsparse", CPU_PROVIDER, 1)
    first, second = backend.open(tmp_path / "a.onnx", INPUTS), backend.open(tmp_path / "b.onnx", INPUTS)
    second.run()
    first.run()
    assert first.pid != second.pid
    assert {path.name for path in tmp_path.glob("*.calls")} == {"a.onnx.calls", "b.onnx.calls"}
