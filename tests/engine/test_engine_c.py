"""The C interface: plan files, what it says of them, handles and threads, and every status."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import c_interface
import numpy as np
import pytest
from c_interface import Model, PlanError, functions
from engine_networks import lenet5, resnet32
from onnx import TensorProto, helper

from tdcompress.cli import main, make_parser
from tdcompress.engine import Session, compile_model, copy_library
from tdcompress.engine.binding import HIGHEST_ISA, OPERATIONS, Library, library
from tdcompress.engine.build import LIBRARY_NAME
from tdcompress.engine.compile import HEADER_NAME, TARGETS
from tdcompress.engine.planfile import MAGIC, VERSION, with_checksum
from tdcompress.errors import UserError

HEADER = (Path(__file__).parents[2] / "tdcompress" / "engine" / "csrc" / HEADER_NAME).read_text(encoding="utf-8")


def status_of(file: bytes) -> int:
    """What loading a file from memory says; it is freed again."""
    try:
        Model.from_memory(file).free()
    except PlanError as error:
        return error.status
    return c_interface.OK


def compiled(model: bytes, folder: Path, isa: str | None = None, shapes: Sequence[Sequence[int]] | None = None) -> bytes:
    compile_model(model, folder / "model.tdc", isa=isa, shapes=shapes)
    return (folder / "model.tdc").read_bytes()


@pytest.fixture(scope="module")
def small(model) -> bytes:
    """A network that plans in no time."""
    w = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["y"])]
    return model(nodes, {"w": w * (w > 0.9)}, {"x": ["b", 3, 8, 8]})


@pytest.mark.parametrize("network", [lenet5(0.9), resnet32(0.9), resnet32(0.0)], ids=["lenet5", "resnet32@90", "resnet32@0"])
@pytest.mark.parametrize("images", [1, 3])
def test_whole_networks_give_every_bit_that_python_gives(network, images, isa, tmp_path):
    x = np.random.default_rng(1).standard_normal((images, 3, 32, 32)).astype(np.float32)
    compile_model(network, tmp_path / "model.tdc", isa=isa)
    with Model.from_file(tmp_path / "model.tdc") as model:
        (got,) = model.run([x])
    assert got.tobytes() == Session(network, isa=isa).run(None, {"input": x})[0].tobytes()


def test_what_it_says_of_inputs_and_outputs(model, tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "token"], ["a"]),
        helper.make_node("Where", ["chosen", "a", "zero"], ["b"]),
        helper.make_node("ReduceSum", ["b", "axes"], ["y"], keepdims=0),
        helper.make_node("Relu", ["a"], ["z"]),
    ]
    table = np.arange(12, dtype=np.float32).reshape(4, 3) - 5
    graph = helper.make_graph(
        nodes,
        "two",
        [
            helper.make_tensor_value_info("token", TensorProto.INT64, ["b", "length"]),
            helper.make_tensor_value_info("chosen", TensorProto.BOOL, ["b", 1, 3]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "z")],
        [
            helper.make_tensor("table", TensorProto.FLOAT, (4, 3), table.reshape(-1)),
            helper.make_tensor("zero", TensorProto.FLOAT, (), [0.0]),
            helper.make_tensor("axes", TensorProto.INT64, (1,), [1]),
        ],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for value in data.graph.output:
        value.type.tensor_type.shape.SetInParent()
    source = data.SerializeToString()
    tokens, chosen = np.array([[1, -1], [0, 2]]), np.array([[[True, False, True]], [[False, True, True]]])
    with Model.from_memory(compiled(source, tmp_path, shapes=[[1, 2], [1, 1, 3]])) as handle:
        assert [(each.name, each.dtype, each.dims, each.elements) for each in handle.shapes(0)] == [
            ("token", np.int64, (0, 2), 2),
            ("chosen", np.uint8, (0, 1, 3), 3),
        ]
        assert [(each.name, each.dtype, each.dims) for each in handle.shapes(1)] == [
            ("y", np.float32, (0, 3)),
            ("z", np.float32, (0, 2, 3)),
        ]
        y, z = handle.run([tokens, chosen])
        np.testing.assert_array_equal(z, np.maximum(table[tokens], 0))
        np.testing.assert_array_equal(y, np.where(chosen, table[tokens], 0).sum(axis=1))
        with pytest.raises(PlanError, match="names a row") as caught:
            handle.run([np.array([[1, 4]]), chosen[:1]])
        assert caught.value.status == c_interface.INPUT
        np.testing.assert_array_equal(handle.run([tokens, chosen])[0], y)  # and it goes on
        assert functions().tdc_count(handle.handle, 2) == 0
        assert functions().tdc_shape(handle.handle, 0, 2, None) == c_interface.ARGUMENT
    with pytest.raises(UserError, match="'token' leaves its size open"):
        compile_model(source, tmp_path / "model.tdc")
    with pytest.raises(UserError, match="the inputs token, chosen, in this order"):
        compile_model(source, tmp_path / "model.tdc", shapes=[[1, 2]])


def test_a_batch_that_the_model_fixes_is_the_only_one(model, tmp_path):
    fixed = model([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": [2, 5]})
    done = compile_model(fixed, tmp_path / "model.tdc")
    assert done.batch == 2
    for batch in (1, 2):
        assert compile_model(fixed, tmp_path / "model.tdc", shapes=[[batch, 5]]) == done
    with pytest.raises(UserError, match=r"'x' cannot have the shape \[3, 5\]: the model is fixed to batches of 2"):
        compile_model(fixed, tmp_path / "model.tdc", shapes=[[3, 5]])
    x = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    with Model.from_file(tmp_path / "model.tdc") as handle:
        assert handle.shapes(0)[0].dims == (2, 5)
        np.testing.assert_array_equal(handle.run([x])[0], np.maximum(x, 0))
        assert [raw_run(handle, x, images) for images in (1, 3, 0, -1, 1 << 40)] == [c_interface.ARGUMENT] * 5
        assert raw_run(handle, x, 2) == c_interface.OK


def raw_run(handle: Model, x: np.ndarray, images: int) -> int:
    """The status of tdc_run with one input and an output of the same size."""
    pointers = [(ctypes.c_void_p * 1)(array.ctypes.data) for array in (x, np.empty_like(x))]
    return int(functions().tdc_run(handle.handle, *pointers, images))


def test_arguments_that_are_missing(small, tmp_path):
    lib, handle = functions(), ctypes.c_void_p()
    for status in (
        lib.tdc_load(None, ctypes.byref(handle)),
        lib.tdc_load(b"model.tdc", None),
        lib.tdc_load_memory(None, 1000, ctypes.byref(handle)),
        lib.tdc_load_memory(b"", 0, None),
        lib.tdc_share(None, ctypes.byref(handle)),
        lib.tdc_shape(None, 0, 0, None),
        lib.tdc_run(None, None, None, 1),
    ):
        assert status == c_interface.ARGUMENT
    with Model.from_memory(compiled(small, tmp_path)) as model:
        nothing = (ctypes.c_void_p * 1)()
        assert lib.tdc_run(model.handle, nothing, nothing, 1) == c_interface.ARGUMENT
        odd = np.zeros(4096, np.uint8)
        assert lib.tdc_load_memory(odd.ctypes.data + 1, 4000, ctypes.byref(handle)) == c_interface.ARGUMENT
    lib.tdc_free(None)


def test_files_that_are_none(small, tmp_path):
    good = compiled(small, tmp_path)
    whole = tmp_path / "whole"
    for name, data, status in (
        ("empty", b"", c_interface.FILE),
        ("short", good[:50], c_interface.FORMAT),
        ("text", b"not a plan" * 100, c_interface.FORMAT),
        ("cut", good[:-64], c_interface.CHECKSUM),
        ("longer", good + bytes(64), c_interface.CHECKSUM),
    ):
        whole.with_name(name).write_bytes(data)
        with pytest.raises(PlanError) as caught:
            Model.from_file(whole.with_name(name))
        assert caught.value.status == status, name
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(PlanError) as caught:
            Model.from_file(path)
        assert caught.value.status == c_interface.FILE


def test_other_versions_and_instruction_sets(small, tmp_path, monkeypatch):
    """Of the whole processor: the C interface reads no variable that hides some."""
    monkeypatch.delenv(HIGHEST_ISA, raising=False)
    isa_all = [found.name for found in Library().instruction_sets]
    good = compiled(small, tmp_path)
    assert good[:8] == MAGIC
    assert f"#define TDC_PLAN_VERSION {VERSION}\n" in HEADER
    later = with_checksum(good[:8] + struct.pack("<q", VERSION + 1) + good[16:])
    assert status_of(later) == c_interface.VERSION
    assert status_of(with_checksum(good)) == c_interface.OK
    for name in TARGETS:
        assert status_of(compiled(small, tmp_path, isa=name)) == (c_interface.OK if name in isa_all else c_interface.ISA)
    # tables of other sizes under a name that is here
    filters_at = 32 + 16 + 8
    assert status_of(with_checksum(good[:filters_at] + struct.pack("<q", 5) + good[filters_at + 8 :])) == c_interface.ISA
    assert functions().tdc_best_isa().decode() == isa_all[0]
    with pytest.raises(UserError, match="avx512, avx2, neon, scalar, simd128"):
        compile_model(small, tmp_path / "model.tdc", isa="sse")


def test_the_sizes_of_instruction_sets_are_those_of_the_kernels():
    for found in library().instruction_sets:
        listed = TARGETS[found.name]
        assert (listed.max_block, listed.dense_filters, listed.linear_lanes) == (
            found.max_block,
            found.dense_filters,
            found.linear_lanes,
        )


def test_any_byte_that_changes_is_noticed(small, tmp_path):
    good = compiled(small, tmp_path)
    for place in range(0, len(good), 7):
        damaged = bytearray(good)
        damaged[place] ^= 1 << place % 8
        assert status_of(bytes(damaged)) != c_interface.OK, place


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("output.space", 1),  # an input that this call does not read: a mapping, or somebody's constants
        ("output.space", 3),  # what it reads
        ("output.space", 5),  # the constants
        ("output.space", 6),
        ("output.offset", 1),
        ("output.halo_top", 1),
        ("output.dtype", 1),
        ("output.image_stride", 4),
        ("output.width", 1 << 40),
        ("a.channels", -1),
        ("b.width", 4),
        ("operation", 12),
        ("act.kind", -1),
    ],
)
def test_a_call_outside_its_memory_is_refused(model, tmp_path, field, value):
    """What a file says with a right checksum; fuzzing seldom finds memory that may be read but not written."""
    nodes = [helper.make_node("Add", ["a", "b"], ["p"]), helper.make_node("Add", ["p", "c"], ["y"])]
    good = compiled(model(nodes, {}, {"a": ["n", 5], "b": ["n", 5], "c": ["n", 5]}), tmp_path)
    code, structure = OPERATIONS["binary_rows"]
    (program,) = struct.unpack_from("<q", good, 112)
    last = program + 8 + ctypes.sizeof(structure)
    assert struct.unpack_from("<q", good, last) == (code,)
    owner, _, name = field.rpartition(".")
    inner = getattr(structure, owner).offset if owner else 0
    kind = dict(structure._fields_).get(owner, structure)
    changed = bytearray(good)
    struct.pack_into("<q", changed, last + 8 + inner + getattr(kind, name).offset, value)
    assert status_of(with_checksum(good)) == c_interface.OK
    assert status_of(with_checksum(bytes(changed))) == c_interface.FORMAT


def test_the_same_model_gives_the_same_file(small, tmp_path):
    program = (
        "import sys\nfrom tdcompress.engine import compile_model\ncompile_model(sys.argv[1], sys.argv[2])\n"  # at other addresses
    )
    (tmp_path / "model.onnx").write_bytes(small)
    arguments = [str(tmp_path / "model.onnx"), str(tmp_path / "other.tdc")]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    assert (tmp_path / "other.tdc").read_bytes() == compiled(small, tmp_path)


def test_handles_of_one_mapping_run_at_the_same_time_and_in_any_order_of_freeing(tmp_path):
    network = lenet5(0.9)
    compile_model(network, tmp_path / "model.tdc")
    first = Model.from_file(tmp_path / "model.tdc")
    handles = [first, *(first.share() for _ in range(3))]
    inputs = [np.random.default_rng(seed).standard_normal((4, 3, 32, 32)).astype(np.float32) for seed in range(4)]
    session = Session(network)
    want = [session.run(None, {"input": x})[0] for x in inputs]

    def repeat(number: int) -> bool:
        return all(handles[number].run([inputs[number]])[0].tobytes() == want[number].tobytes() for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(repeat, range(4)))
    first.free()
    (tmp_path / "model.tdc").unlink()
    assert repeat(1)
    for handle in handles[1:]:
        handle.free()


def test_every_status_has_words_and_a_line_in_the_header():
    numbers = dict(re.findall(r"TDC_(?:ERROR_)?(\w+) = (\d)", HEADER))
    assert numbers == {
        name: str(getattr(c_interface, name))
        for name in ("OK", "ARGUMENT", "FILE", "FORMAT", "VERSION", "CHECKSUM", "ISA", "MEMORY", "INPUT", "PLATFORM")
    }
    messages = {functions().tdc_message(number) for number in range(len(numbers))}
    assert len(messages) == len(numbers)
    assert functions().tdc_message(99) == functions().tdc_message(-1) == b"an unknown status"


def test_the_library_exports_its_interface_and_calls_nothing_that_ends_a_process_or_prints(tmp_path):
    nm = shutil.which("nm")
    if nm is None or sys.platform != "linux" or "TDCOMPRESS_ENGINE_LIBRARY" in os.environ:
        pytest.skip("needs nm, ELF and a library without sanitizers")
    _, file = copy_library(tmp_path)

    def symbols(*flags: str) -> set[str]:
        listed = subprocess.run([nm, "-D", *flags, str(file)], check=True, capture_output=True, text=True).stdout
        return {line.split()[-1].split("@")[0] for line in listed.splitlines()}

    public = set(re.findall(r"^TDC_API [^;]*?(tdc_\w+)\(", HEADER, flags=re.MULTILINE))
    assert len(public) == 9
    plugin = {"CreateEpFactories", "ReleaseEpFactory"}  # of onnxruntime
    assert symbols("--defined-only") - {"_init", "_fini"} == public | plugin | {"tdc_isa_at", "tdc_sizeof", "tdc_execute"}
    called = symbols("--undefined-only")
    assert {"mmap", "calloc"} <= called
    assert not {name for name in called if re.search(r"abort|exit|assert|(?<!sn)print|puts|write|signal|getenv|system", name)} - {
        "__cxa_finalize"
    }


def test_the_commands(small, tmp_path, capsys):
    for name in TARGETS:
        assert make_parser().parse_args(["compile", "a.onnx", "a.tdc", "--isa", name]).isa == name
    (tmp_path / "model.onnx").write_bytes(small)
    source, target = str(tmp_path / "model.onnx"), str(tmp_path / "model.tdc")
    assert main(["compile", source, target, "--isa", "scalar"]) == 0
    said = capsys.readouterr().out
    assert "bytes for scalar, any batch size" in said
    assert "input x: float32 3x8x8 an image" in said
    assert main(["compile", source, target, "--shape", "1x3x9x9"]) == 2
    assert "takes" in capsys.readouterr().err
    assert main(["compile", source, target, "--shape", "5x3x8x8"]) == 2
    assert "leaves its batch open, and runs image by image: give 1 as the first size" in capsys.readouterr().err
    assert main(["compile", source, target, "--shape", "1x3x8x8"]) == 0
    capsys.readouterr()
    assert main(["library", str(tmp_path / "c")]) == 0
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == sorted([LIBRARY_NAME, HEADER_NAME])
    assert main(["compile", str(tmp_path / "c" / HEADER_NAME), target]) == 2
