"""A network is traced once for all its number formats, and its files are those of a process that has traced nothing."""

import onnx
import pytest
from onnx import helper, numpy_helper

from tdcompress.export import traced_once as module
from tdcompress.export.traced_once import traced_once


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_kept", {})


def model(name: str, size: int = 0) -> onnx.ModelProto:
    proto = helper.make_model(helper.make_graph([], name, [], []))
    if size:
        proto.graph.initializer.append(helper.make_tensor("w", onnx.TensorProto.UINT8, [size], bytes(size), raw=True))
    return proto


def made(network: str, size: int = 0) -> bool:
    """Whether it was traced now."""
    traced = []

    def trace() -> dict[str, onnx.ModelProto]:
        traced.append(network)
        return {"m.onnx": model(network, size)}

    (proto,) = traced_once(network, trace).values()
    assert proto == model(network, size)
    return bool(traced)


def test_what_a_caller_changes_is_its_own() -> None:
    first = traced_once("a", lambda: {"m.onnx": model("a", 3)})["m.onnx"]
    first.graph.initializer[0].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(first.graph.initializer[0]) + 1, "w"))
    second = traced_once("a", lambda: pytest.fail("traced again"))["m.onnx"]
    assert second == model("a", 3)
    second.graph.name = "changed"
    assert traced_once("a", lambda: pytest.fail("traced again"))["m.onnx"] == model("a", 3)


def test_the_oldest_go_first_and_too_large_ones_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BYTES_AT_MOST", 1000)
    assert [made("a", 400), made("b", 400), made("a", 400), made("b", 400)] == [True, True, False, False]
    assert made("c", 400)
    assert [made("b", 400), made("a", 400)] == [False, True]  # a had to go, and in its turn b goes
    assert [made("c", 400), made("b", 400)] == [False, True]
    assert [made("d", 2000), made("d", 2000)] == [True, True]
    assert [made("a", 400), made("b", 400)] == [False, False]  # what is too large takes nobody's place
