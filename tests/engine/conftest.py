"""Models as small ONNX graphs, and the comparison of the engine with onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from c_interface import Model
from onnx import helper
from small_models import make_model, normal

from tdcompress.engine import Session, pool, unavailable_reason
from tdcompress.engine.binding import library
from tdcompress.engine.planfile import Port, plan_bytes

TOLERANCE = 1e-5  # of the largest output
if "TDCOMPRESS_ENGINE_LIBRARY" in os.environ:  # sanitizers see the end of a table only where it has its own memory
    pool.BLOCK_BYTES = 0


def run_reference(model: bytes, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return list(onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, dict(feed)))


def assert_close(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> None:
    assert len(got) == len(want)
    for mine, theirs in zip(got, want, strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype == np.float32
        finite = np.isfinite(theirs)
        np.testing.assert_array_equal(mine[~finite], theirs[~finite])
        scale = max(float(np.abs(theirs[finite]).max(initial=0)), 1e-30)
        assert float(np.abs(mine[finite] - theirs[finite]).max(initial=0)) <= TOLERANCE * scale


def session_file(session: Session) -> bytes:
    """The plan file of what a session ran last."""
    latest = session._latest
    assert latest is not None
    plan = latest[1].plan
    shapes = next(shapes for shapes, program in session._programs.items() if program is latest[1])
    values = session._graph.inputs
    inputs = [Port(name=value.name, dtype=value.dtype.name, shape=shape) for value, shape in zip(values, shapes, strict=True)]
    names = dict.fromkeys(value.name for value in session.get_outputs())
    outputs = [Port(name=name, dtype="float32", shape=shape) for name, shape in zip(names, plan.output_shapes, strict=True)]
    return plan_bytes(plan, session._isa, inputs=inputs, outputs=outputs, batch=session._batch)


def assert_same_in_c(session: Session, feed: Mapping[str, np.ndarray]) -> None:
    """The plan as a file, loaded and run by the C interface, gives every bit of what the session gives."""
    want = session.run(list(dict.fromkeys(value.name for value in session.get_outputs())), feed)
    with Model.from_memory(session_file(session)) as model:
        for got, expected in zip(model.run([feed[value.name] for value in session.get_inputs()]), want, strict=True):
            assert got.shape == expected.shape
            assert got.tobytes() == expected.tobytes()


@pytest.fixture(scope="session", autouse=True)
def _engine(once: Callable[..., Path]) -> None:
    once("engine", lambda folder: unavailable_reason())  # compiled by one worker, found by the others
    reason = unavailable_reason()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(params=["avx512", "avx2", "neon", "scalar"])
def isa(request: pytest.FixtureRequest) -> str:
    if request.param not in [found.name for found in library().instruction_sets]:
        pytest.skip(f"no {request.param} here")
    return str(request.param)


@pytest.fixture(scope="session")
def isa_all() -> list[str]:
    """Every instruction set of this machine."""
    return [found.name for found in library().instruction_sets]


@pytest.fixture(scope="session")
def model() -> Callable[..., bytes]:
    return make_model


@pytest.fixture(scope="session")
def small() -> bytes:
    """conv - relu - pool - flatten - gemm with 80 % zeros."""
    generator = np.random.default_rng(3)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], name="gemm"),
    ]
    w, v = normal(generator, 8, 3, 3, 3), normal(generator, 8 * 36, 10)
    w[generator.random(w.shape) < 0.8] = 0
    v[generator.random(v.shape) < 0.8] = 0
    return make_model(nodes, {"w": w, "v": v}, {"x": ["batch", 3, 12, 12]})


@pytest.fixture(scope="session")
def check() -> Callable[..., list[np.ndarray]]:
    """Runs a model in both and compares, the engine also through the C interface; returns the engine's outputs."""

    def compare(model: bytes, feed: Mapping[str, np.ndarray], isa: str | None = None, threads: int = 1) -> list[np.ndarray]:
        session = Session(model, threads, isa=isa)
        got = session.run(None, feed)
        assert_close(got, run_reference(model, feed))
        assert_same_in_c(session, feed)
        return got

    return compare


@pytest.fixture(scope="session")
def reference() -> Callable[..., list[np.ndarray]]:
    """What onnxruntime computes."""
    return run_reference


@pytest.fixture(scope="session")
def close() -> Callable[..., None]:
    """Asserts that two lists of outputs are the same but for rounding."""
    return assert_close
