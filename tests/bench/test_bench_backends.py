import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from tdcompress.bench.backends import BACKENDS, create_backend
from tdcompress.bench.backends.base import CPU_PROVIDER
from tdcompress.bench.backends.onnxruntime import last_line, placement_notes, refuse_fallback
from tdcompress.errors import UnsupportedError

INPUTS = {"input": np.ones((2, 4), np.float32)}
MODEL = Path("model.onnx")


def test_every_backend_is_registered_by_its_own_name():
    assert {name: kind.name for name, kind in BACKENDS.items()} == {name: name for name in BACKENDS}


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "onnxruntime"])
def test_only_onnxruntime_has_providers(name):
    with pytest.raises(UnsupportedError, match="runs on the CPU only"):
        create_backend(name, "CUDAExecutionProvider", 1)


@pytest.mark.parametrize(
    ("name", "module", "advice"),
    [
        ("openvino", "openvino", "pip install openvino"),
        ("engine", "tdcompress.engine", "use onnxruntime"),
    ],
)
def test_a_backend_that_is_not_installed_is_refused_with_advice(monkeypatch, name, module, advice):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnsupportedError, match=advice):
        create_backend(name, CPU_PROVIDER, 1)


def test_the_session_chooses_where_it_runs_and_is_believed_only_then():
    refuse_fallback(MODEL, "CUDA", "CUDA", {})  # an onnxruntime that does not tell placements
    refuse_fallback(MODEL, "CUDA", "CUDA", {"CUDA": 8, "CPU": 1})
    with pytest.raises(UnsupportedError, match=r"model\.onnx: onnxruntime fell back from CUDA to CPU"):
        refuse_fallback(MODEL, "CUDA", "CPU", {"CPU": 9})
    with pytest.raises(UnsupportedError, match="placed no node on CUDA, all 9 on CPU"):
        refuse_fallback(MODEL, "CUDA", "CUDA", {"CPU": 9})


def test_nodes_elsewhere_are_said_and_so_is_that_nobody_knows():
    assert placement_notes("CUDA", {"CUDA": 8, "CPU": 1}) == ("1 of 9 nodes ran on another provider",)
    assert placement_notes("CUDA", {"CUDA": 9}) == ()
    (note,) = placement_notes("CUDA", {})
    assert note == "this onnxruntime does not say where nodes run (1.24 does): some may have run on the CPU"
    assert placement_notes("CPUExecutionProvider", {}) == ()


def test_the_last_line_of_a_runtimes_error_is_kept():
    assert last_line(RuntimeError("context\n  the   cause \n")) == "the cause"
    assert last_line(RuntimeError()) == "RuntimeError"


def test_onnxruntime_runs_the_file_on_the_inputs(make_model):
    session = create_backend("onnxruntime", CPU_PROVIDER, 1).open(make_model(), INPUTS)
    (logits,) = session.run()
    assert logits.shape == (2, 3)
    assert session.provider == CPU_PROVIDER


def test_null_runs_nothing():
    session = create_backend("null", CPU_PROVIDER, 1).open(MODEL, INPUTS)
    assert session.run() is None
    assert session.provider == "none"


def test_engine_is_called_as_a_user_calls_it(monkeypatch):
    calls = []

    class Session:
        def __init__(self, path, threads, external_data):
            assert external_data  # the benchmark asked before
            calls.append((path, threads))

        def run(self, outputs, inputs):
            assert outputs is None
            return [inputs["input"] + 1]

    monkeypatch.setitem(sys.modules, "tdcompress.engine", types.SimpleNamespace(Session=Session, unavailable_reason=lambda: None))
    session = create_backend("engine", CPU_PROVIDER, 3).open(MODEL, INPUTS)
    assert calls == [(MODEL, 3)]
    assert np.array_equal(session.run()[0], np.full((2, 4), 2, np.float32))


def test_openvino_reports_the_precision_it_computes_in(make_model):
    pytest.importorskip("openvino")
    session = create_backend("openvino", CPU_PROVIDER, 1).open(make_model(), INPUTS)
    assert session.options["precision"] in ("f32", "bf16", "f16")
    assert next(iter(session.run().values())).shape == (2, 3)


def test_nothing_of_the_benchmark_imports_torch():
    program = (
        "import sys, pkgutil, importlib\n"
        "sys.modules['torch'] = None\n"
        "import tdcompress.bench\n"
        "names = [m.name for m in pkgutil.walk_packages(tdcompress.bench.__path__, 'tdcompress.bench.')]\n"
        "assert len(names) > 15, names\n"
        "for name in names: importlib.import_module(name)\n"
        "assert sys.modules['torch'] is None\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_worker_starts_without_the_parents_libraries():
    program = (
        "import sys, tdcompress.bench.worker\n"
        "heavy = {'onnx', 'onnxruntime', 'scipy', 'torch', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
