"""The plugin of onnxruntime: files with a plan inside, what runs them, and what is said against damaged ones."""

from __future__ import annotations

import ctypes
import multiprocessing
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import ort_plugin
import pytest
from engine_networks import lenet5, resnet32
from onnx import TensorProto, helper

from tdcompress.cli import main
from tdcompress.engine import PROVIDER_NAME, Session, compile_model, copy_library
from tdcompress.engine.build import SOURCE, load_library
from tdcompress.engine.planfile import with_checksum
from tdcompress.errors import UnsupportedError, UserError
from tdcompress.onnxfile.metadata import get_metadata, set_metadata

pytestmark = pytest.mark.skipif(
    not hasattr(onnxruntime, "register_execution_provider_library"), reason="onnxruntime has plugins since 1.23"
)
ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5  # of the largest output


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_library(tmp_path_factory.mktemp("library"))[1]


@pytest.fixture(scope="module")
def child(library: Path) -> Iterator[Callable[..., Any]]:
    """Calls a function of tests/support/ort_plugin.py in a process where the plugin is registered."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=ort_plugin.register, initargs=(str(library),)) as pool:
        yield lambda function, *args: pool.submit(function, *args).result(timeout=300)


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[..., onnx.ModelProto]:
    def make(model: bytes, **options: Any) -> onnx.ModelProto:
        compile_model(model, tmp_path / "compiled.onnx", **options)
        return onnx.load(tmp_path / "compiled.onnx")

    return make


def by_onnxruntime(model: bytes, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return list(onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, dict(feed)))


def assert_close(got: list[np.ndarray], want: list[np.ndarray]) -> None:
    for mine, theirs in zip(got, want, strict=True):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        assert np.abs(mine - theirs).max() <= TOLERANCE * np.abs(theirs).max()


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 32, 32)).astype(np.float32)


def small(sizes: tuple[int | str, ...] = ("b", 5)) -> bytes:
    """Two inputs, which are not treated alike, and two outputs."""
    graph = helper.make_graph(
        [helper.make_node("Sub", ["p", "q"], ["d"]), helper.make_node("Relu", ["q"], ["r"])],
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name in "pq"],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name in "dr"],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def typed() -> bytes:
    """Inputs that are not float32: row numbers of a table, and a bool."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "token"], ["a"]), helper.make_node("Where", ["chosen", "a", "zero"], ["y"])],
        "typed",
        [
            helper.make_tensor_value_info("token", TensorProto.INT64, ["b", 2]),
            helper.make_tensor_value_info("chosen", TensorProto.BOOL, ["b", 1, 3]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 2, 3])],
        [
            helper.make_tensor("table", TensorProto.FLOAT, (4, 3), np.arange(12, dtype=np.float32) - 5),
            helper.make_tensor("zero", TensorProto.FLOAT, (), [0.0]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def pair(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(count)
    return {name: rng.standard_normal((count, 5)).astype(np.float32) for name in "pq"}


@pytest.mark.parametrize("network", [lenet5(0.9), resnet32(0.9), resnet32(0.0)], ids=["lenet5@90", "resnet32@90", "resnet32@0"])
def test_whole_networks_at_every_batch_size(network, child, compiled):
    feeds = [{"input": images(count, count)} for count in (1, 3, 1, 8)]
    file = compiled(network).SerializeToString()
    for threads in (1, 2):
        for feed, got in zip(feeds, child(ort_plugin.outputs, file, feeds, threads), strict=True):
            assert_close(got, by_onnxruntime(network, feed))
            assert got[0].tobytes() == Session(network).run(None, feed)[0].tobytes()


def test_sessions_and_callers_at_the_same_time(child, compiled):
    networks = [lenet5(0.9), lenet5(0.5)]
    feeds = [{"input": images(count, count)} for count in (1, 2, 5)]
    found = child(ort_plugin.together, [compiled(network).SerializeToString() for network in networks], feeds, 6, 10)
    for network, answers in zip(networks, found, strict=True):
        for feed, got in zip(feeds, answers, strict=True):
            assert_close(got, by_onnxruntime(network, feed))


def test_several_inputs_and_outputs_of_several_types(child, compiled):
    feeds = [pair(1), pair(4)]
    for feed, got in zip(feeds, child(ort_plugin.outputs, compiled(small()).SerializeToString(), feeds), strict=True):
        assert_close(got, by_onnxruntime(small(), feed))
    tokens = {"token": np.array([[1, -1], [0, 2]]), "chosen": np.array([[[True, False, True]], [[False, True, True]]])}
    ((got,),) = child(ort_plugin.outputs, compiled(typed()).SerializeToString(), [tokens])
    np.testing.assert_array_equal(got, by_onnxruntime(typed(), tokens)[0])
    wrong = {**tokens, "token": np.array([[1, 4], [0, 0]])}
    said = child(ort_plugin.refusal, compiled(typed()).SerializeToString(), wrong)
    assert re.search("run: .*tdcompress: node compiled: run: an input names a row", said)


def test_a_batch_that_is_fixed_or_empty(child, compiled):
    file = compiled(small((2, 5)))
    assert_close(child(ort_plugin.outputs, file.SerializeToString(), [pair(2)])[0], by_onnxruntime(small((2, 5)), pair(2)))
    for value in file.graph.input:  # a file that promises more than its plan
        value.type.tensor_type.shape.dim[0].dim_param = "b"
    assert "node compiled: p: another shape" in child(ort_plugin.refusal, file.SerializeToString(), pair(3))
    nothing = {name: np.empty((0, 5), np.float32) for name in "pq"}
    (plugin,) = child(ort_plugin.outputs, compiled(small()).SerializeToString(), [nothing])
    for found in (plugin, Session(small()).run(None, nothing), by_onnxruntime(small(), nothing)):
        assert [(out.shape, out.dtype) for out in found] == [((0, 5), np.float32)] * 2


def test_shapes_that_differ_are_refused(child, compiled):
    file = compiled(small())
    for value in file.graph.input:
        value.type.tensor_type.shape.dim[1].dim_param = "any"
    file = file.SerializeToString()
    for p, q in (((2, 6), (2, 6)), ((2, 5), (3, 5)), ((2, 5), (2, 4))):
        said = child(ort_plugin.refusal, file, {"p": np.zeros(p, np.float32), "q": np.zeros(q, np.float32)})
        assert re.search(r"run: .*node compiled: [pq]: another shape than the model was compiled for", said)


def test_a_file_keeps_names_types_sizes_and_metadata(child, tmp_path):
    model = onnx.load_model_from_string(small(("batch", "width")))
    set_metadata(model, {"preprocessing": "none", "labels": "a b"})
    model.doc_string, model.producer_name = "what it is for", "a trainer"
    onnx.save(model, tmp_path / "model.onnx")
    arguments = ["compile", str(tmp_path / "model.onnx"), str(tmp_path / "out.onnx"), "--isa", "scalar"]
    assert main([*arguments, "--shape", "1x5", "--shape", "1x5"]) == 0
    file = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(file)
    (node,) = file.graph.node
    assert (node.op_type, node.domain, list(node.input), list(node.output)) == (
        "EPContext",
        "com.microsoft",
        ["p", "q"],
        ["d", "r"],
    )
    assert get_metadata(file) == get_metadata(model)
    assert (file.doc_string, file.producer_name, file.graph.name) == ("what it is for", "a trainer", "small")
    said = child(ort_plugin.facts, file.SerializeToString())
    assert said["inputs"] == [("p", ["batch", 5], "tensor(float)"), ("q", ["batch", 5], "tensor(float)")]
    assert said["outputs"] == [("d", ["batch", 5], "tensor(float)"), ("r", ["batch", 5], "tensor(float)")]
    assert said["metadata"] == {"preprocessing": "none", "labels": "a b"}
    before = (tmp_path / "model.onnx").read_bytes()
    with pytest.raises(UserError, match="is the model itself"):
        compile_model(tmp_path / "model.onnx", tmp_path / "model.onnx", shapes=[[1, 5], [1, 5]])
    assert (tmp_path / "model.onnx").read_bytes() == before


def test_without_the_plugin_the_message_names_it(compiled):
    with pytest.raises(Exception, match=f"EPContext.*{PROVIDER_NAME}"):
        onnxruntime.InferenceSession(compiled(small()).SerializeToString(), providers=["CPUExecutionProvider"])


def test_what_is_compiled_is_told_by_the_verbs(tmp_path, capsys):
    (tmp_path / "model.onnx").write_bytes(lenet5(0.9))
    file, plan = (tmp_path / name for name in ("compiled.onnx", "model.tdc"))
    for target in (file, plan):
        compile_model(tmp_path / "model.onnx", target, isa="scalar")
    assert main(["inspect", str(file)]) == 0
    said = capsys.readouterr().out
    assert "its network is a plan, for onnxruntime with the plugin that it was made for (docs/provider.md)" in " ".join(
        said.split()
    )
    assert "inf" not in said
    assert "encoding" not in said  # no table without rows
    for verb in (["verify"], ["bench", "--baseline", str(file)]):
        assert main([verb[0], str(file), *verb[1:]]) != 0
        said = " ".join(capsys.readouterr().err.split())
        assert "it is compiled, and runs where the plugin that it was made for is registered (docs/provider.md)" in said
    for verb in (["inspect"], ["inspect", "--backend", "engine"], ["verify"]):
        assert main([*verb, str(plan)]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert (
            "model.tdc: not a model: it is a plan, which `tdcompress compile` made for the engine's C library (docs/c.md)" in said
        )


def test_what_is_compiled_is_not_compiled_again(compiled, tmp_path):
    with pytest.raises(UnsupportedError, match=r"compiled already.*give the engine the file that it was made of"):
        compile_model(compiled(small()).SerializeToString(), tmp_path / "again.onnx")


def attribute(model: onnx.ModelProto, name: str) -> onnx.AttributeProto:
    (found,) = (each for node in model.graph.node for each in node.attribute if each.name == name)
    return found


def with_attribute(model: onnx.ModelProto, name: str, value: bytes | int) -> bytes:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    attribute(changed, name).CopyFrom(helper.make_attribute(name, value))
    return changed.SerializeToString()


def test_damaged_plans_are_refused_when_the_session_is_made(child, compiled):
    file = compiled(lenet5(0.9))
    plan = attribute(file, "ep_cache_context").s
    later = with_checksum(plan[:8] + (99).to_bytes(8, "little") + plan[16:])
    for damaged, reason in (
        (b"", "no plan file"),
        (b"x", "no plan file"),
        (b"not a plan" * 100, "no plan file"),
        (plan[:-64], "damaged"),
        (plan[:5000] + b"?" + plan[5001:], "damaged"),
        (later, "another version"),
    ):
        said = child(ort_plugin.refusal, with_attribute(file, "ep_cache_context", damaged))
        assert re.search(f"session: .*tdcompress: node compiled: ep_cache_context: .*{reason}", said), said
    for name in ("embed_mode", "main_context"):
        assert "the plan has to be in the node" in child(ort_plugin.refusal, with_attribute(file, name, 0))
    others = child(ort_plugin.refusal, with_attribute(file, "source", b"OtherExecutionProvider"))
    assert "tdcompress:" not in others  # it is not ours to say
    assert "generated by 'OtherExecutionProvider' is not compatible" in others


def test_nodes_that_do_not_fit_their_plan_are_refused(child, compiled):
    file = compiled(small())
    small_bytes = file.SerializeToString()

    def changed(edit: Callable[[onnx.GraphProto], object]) -> str:
        model = onnx.load_model_from_string(small_bytes)
        edit(model.graph)
        return str(child(ort_plugin.refusal, model.SerializeToString()))

    def no_second_input(graph: onnx.GraphProto) -> None:
        graph.node[0].input.pop()
        graph.input.pop()

    def no_second_output(graph: onnx.GraphProto) -> None:
        graph.value_info.append(graph.output.pop())

    assert re.search("session: .*node compiled: inputs: the plan has more or fewer", changed(no_second_input))
    assert re.search("session: .*node compiled: r: nothing reads it", changed(no_second_output))
    for values in ("input", "output"):  # a smaller type, so that the plan would write or read beyond its end
        for number, name in enumerate("pq" if values == "input" else "dr"):
            said = changed(
                lambda graph, values=values, number=number: setattr(
                    getattr(graph, values)[number].type.tensor_type, "elem_type", TensorProto.INT8
                )
            )
            assert re.search(f"session: .*node compiled: {name}: the plan has another element type", said)


def test_among_other_nodes(child, compiled):
    """Somebody puts two compiled models between nodes of their own, and one value into both inputs."""
    one = compiled(small()).graph.node[0]
    two = onnx.NodeProto()
    two.CopyFrom(one)
    two.name, two.input[:], two.output[:] = "second", ["d", "p"], ["e", "f"]
    one.input[:] = ["twice", "twice"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["p", "p"], ["twice"]), one, two, helper.make_node("Neg", ["e"], ["n"])],
        "joined",
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["b", 5])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 5]) for name in "rfn"],
        value_info=[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 5]) for name in "de"],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    joined = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    p = pair(3)["p"]
    ((r, f, n),) = child(ort_plugin.outputs, joined, [{"p": p}])
    np.testing.assert_array_equal(r, np.maximum(p + p, 0))
    np.testing.assert_array_equal(f, np.maximum(p, 0))
    np.testing.assert_array_equal(n, p)  # -((2p - 2p) - p)


def test_the_library_comes_and_goes(library, compiled):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=ort_plugin.register, initargs=(str(library),)) as pool:
        file = compiled(small()).SerializeToString()
        got = pool.submit(ort_plugin.library_comes_and_goes, str(library), file, pair(2)).result(timeout=300)
    assert_close(got, by_onnxruntime(small(), pair(2)))


def test_an_older_onnxruntime_is_told(monkeypatch):
    """Its table of functions has no plugin in it; the first function of every table makes an error."""
    said: list[bytes] = []
    create_status = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)(
        lambda code, message: said.append(message) or 1
    )
    table = (ctypes.c_void_p * 1)(ctypes.cast(create_status, ctypes.c_void_p))
    asked: list[int] = []
    get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(
        lambda version: asked.append(version) or (ctypes.addressof(table) if version == 1 else None)
    )
    base = (ctypes.c_void_p * 2)(ctypes.cast(get_api, ctypes.c_void_p))
    create = load_library().CreateEpFactories
    create.argtypes, create.restype = [ctypes.c_void_p] * 4 + [ctypes.c_size_t, ctypes.c_void_p], ctypes.c_void_p
    assert create(b"tdcompress", ctypes.addressof(base), None, None, 1, None) == 1
    assert (asked, said) == ([23, 1], [b"tdcompress needs onnxruntime 1.23 or newer"])


def test_the_name_is_the_same_in_python_and_c():
    assert f'#define PROVIDER_NAME "{PROVIDER_NAME}"' in (SOURCE / "provider.h").read_text(encoding="utf-8")


def test_what_the_documentation_shows(tmp_path, monkeypatch):
    """The shell lines make the files that the programs open, in every language; the one in Python runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(lenet5(0.9))
    np.save(tmp_path / "images.npy", images(4))
    text = (ROOT / "docs" / "provider.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL))
    assert sorted(shown) == ["cpp", "csharp", "java", "python", "sh"]
    for line in shown.pop("sh").splitlines():
        assert main(line.split("#")[0].split()[1:]) == 0
    for language, program in shown.items():
        files = set(re.findall(r'"([\w/]+\.\w+)"', program))
        assert {"deploy/compiled.onnx", "deploy/libtdcompress.so"} <= files, language
        assert [name for name in files if not (tmp_path / name).exists()] == [], language
    (tmp_path / "program.py").write_text(shown["python"], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    want = by_onnxruntime(lenet5(0.9), {"input": images(4)})[0].argmax(axis=1)
    assert done.stdout.strip() == str(want)
