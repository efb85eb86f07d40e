"""A model as C source: the host's compiler takes it without a warning, and it gives every bit that the portable kernels give."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from ctypes import Structure, c_void_p
from pathlib import Path

import numpy as np
import plan_seeds
import pytest
from engine_networks import lenet5
from onnx import helper

from tdcompress.cli import main
from tdcompress.engine import EmittedModel, emit_c
from tdcompress.engine.binding import OPERATIONS
from tdcompress.engine.build import find_compiler
from tdcompress.engine.csource import c_types, kernel_sources, one_source

DIGITS = Path(__file__).parents[2] / "docs" / "demo" / "digits.onnx"
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-ffp-contract=off")
SEED_INPUTS = {
    "convolutions": np.random.default_rng(1).standard_normal((3, 3, 12, 12)).astype(np.float32),
    "rows": np.random.default_rng(1).standard_normal((3, 6, 5, 7)).astype(np.float32),
    "tokens": np.random.default_rng(1).integers(-7, 7, (3, 5)),
}


@pytest.fixture(scope="session")
def compiler() -> tuple[str, ...]:
    found = find_compiler()
    if found is None:
        pytest.skip("no compiler for this test")
    return found


@pytest.fixture
def compiled(compiler, tmp_path) -> Callable[[bytes | Path], tuple[EmittedModel, Callable[..., int]]]:
    """What was emitted of a model, and its function, compiled by itself."""

    def build(model: bytes | Path) -> tuple[EmittedModel, Callable[..., int]]:
        done = emit_c(model, tmp_path / "net.c")
        library = tmp_path / f"net-{len(list(tmp_path.iterdir()))}.so"  # one that is loaded is not loaded again
        command = [*compiler, *WARNINGS, "-O1", "-shared", "-fPIC", str(done.source), "-lm", "-o", str(library)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        return done, ctypes.CDLL(str(library)).net_run

    return build


def run(built: tuple[EmittedModel, Callable[..., int]], feed: Mapping[str, np.ndarray]) -> tuple[list[int], list[np.ndarray]]:
    """(statuses, outputs) of a batch, image after image."""
    done, function = built
    images = len(next(iter(feed.values())))
    outputs = [np.full((images, *port.shape), np.nan, np.float32) for port in done.outputs]
    statuses = []
    for image in range(images):
        arrays = [np.ascontiguousarray(feed[port.name][image]) for port in done.inputs]
        places = [*(array.ctypes.data for array in arrays), *(output[image].ctypes.data for output in outputs)]
        statuses.append(function(*map(c_void_p, places)))
    return statuses, outputs


@pytest.fixture
def same(compiled, check, isa_all) -> Callable[..., None]:
    """The emitted model gives every bit that the engine gives with portable kernels, which are compared with onnxruntime."""
    portable = "scalar" in isa_all

    def compare(model: bytes, feed: Mapping[str, np.ndarray], exact: bool = True) -> None:
        statuses, got = run(compiled(model), feed)
        assert statuses == [0] * len(statuses)
        for mine, theirs in zip(got, check(model, feed, isa="scalar" if portable else None), strict=True):
            if portable and exact:
                assert mine.tobytes() == theirs.tobytes()
            else:
                np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())

    return compare


@pytest.mark.parametrize("make", plan_seeds.MODELS, ids=lambda make: make.__name__)
def test_every_kernel(same, make):
    same(make(), {"x": SEED_INPUTS[make.__name__]})


def block(width: int, zeros: float) -> bytes:
    """A stem, a depthwise convolution, a residual sum, a strided convolution, pooling, a fully connected layer."""
    nodes = [
        helper.make_node("Conv", ["x", "stem"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "each"], ["d"], pads=[1, 1, 1, 1], group=6),
        helper.make_node("HardSwish", ["d"], ["h"]),
        helper.make_node("Conv", ["h", "wide"], ["w"], pads=[2, 2, 2, 2]),
        helper.make_node("Add", ["w", "r"], ["s"]),
        helper.make_node("Conv", ["s", "down"], ["e"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("AveragePool", ["e"], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "full"], ["y"], transB=1),
    ]
    side = (((width + 1) // 2) + 1) // 2
    shapes = {
        "stem": (6, 3, 3, 3),
        "each": (6, 1, 3, 3),
        "wide": (6, 6, 5, 5),
        "down": (5, 6, 3, 3),
        "full": (11, 5 * side * side),
    }
    constants = {name: plan_seeds.pruned(shape, zeros, seed) for seed, (name, shape) in enumerate(shapes.items())}
    return plan_seeds.make_model(nodes, constants, {"x": ["b", 3, width, width]})


@pytest.mark.parametrize("zeros", [0.0, 0.9])
@pytest.mark.parametrize("width", [5, 8, 16, 20, 37])  # rows of half a vector, one, two, three
def test_small_networks_of_all_widths(same, width, zeros):
    x = np.random.default_rng(0).standard_normal((2, 3, width, width)).astype(np.float32)
    same(block(width, zeros), {"x": x})


def test_whole_networks(same):
    rng = np.random.default_rng(1)
    same(DIGITS.read_bytes(), {"input": rng.standard_normal((5, 1, 8, 8)).astype(np.float32)})
    unpadded = rng.standard_normal((2, 3, 32, 32)).astype(np.float32)
    same(lenet5(0.9), {"input": unpadded}, exact=False)  # its convolutions of 32 columns add in another order


def test_a_softmax_of_any_length(same, model):
    for size in (3, 4, 9, 300):
        nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=-1)]
        same(
            model(nodes, {}, {"x": ["b", size]}), {"x": np.random.default_rng(size).standard_normal((2, size)).astype(np.float32)}
        )


def test_numbers_that_c_has_no_digits_for(compiled, check):
    """In models that call nothing of math.h: bounds that are left open, weights, and a zero's sign, which a division shows."""
    x = np.array([[3, -2, 0.5]], np.float32)
    clip = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Clip", ["c", "low"], ["y"])]
    pad = [helper.make_node("Pad", ["x", "pads", "value"], ["p"]), helper.make_node("Reciprocal", ["p"], ["y"])]
    one = np.array(1, np.float32)
    for nodes, constants, feed in (
        (clip, {"w": np.ones((2, 1, 1, 1), np.float32), "low": one}, x.reshape(1, 1, 1, 3)),
        ([helper.make_node("Gemm", ["x", "w"], ["y"])], {"w": np.array([[np.inf, 1], [1, -np.inf], [1, np.nan]], np.float32)}, x),
        (pad, {"pads": np.array([0, 1, 0, 0]), "value": -0.0 * one}, x),
    ):
        model = plan_seeds.make_model(nodes, constants, {"x": ["b", *feed.shape[1:]]})
        statuses, (got,) = run(compiled(model), {"x": feed})
        (want,) = check(model, {"x": feed}, isa=None)
        assert statuses == [0]
        np.testing.assert_array_equal(got, want)  # NaN where there is NaN


def test_a_convolution_of_zeros_alone(same):
    weight = np.zeros((4, 3, 3, 3), np.float32)
    nodes = [helper.make_node("Conv", ["x", "w", "bias"], ["y"], pads=[1, 1, 1, 1])]
    model = plan_seeds.make_model(nodes, {"w": weight, "bias": np.arange(4, dtype=np.float32)}, {"x": ["b", 3, 5, 5]})
    same(model, {"x": np.ones((1, 3, 5, 5), np.float32)})


def test_a_row_that_is_not_there_is_a_status(compiled):
    built = compiled(plan_seeds.tokens())
    statuses, _ = run(built, {"x": np.array([[0, 1, 2, 3, 4], [0, 1, 2, 3, 70000]])})
    assert statuses == [0, 1]


@pytest.mark.parametrize("width", [5, 20, 37])
@pytest.mark.parametrize("zeros", [0.0, 0.9])
def test_the_arena_is_as_large_as_what_is_touched(width, zeros, tmp_path):
    """Sanitizers see what lies outside of it; nothing is kept around it, as there is in the engine."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc with its sanitizers")
    emit_c(block(width, zeros), tmp_path / "net.c")
    (tmp_path / "main.c").write_text(
        '#include "net.h"\n'
        "static float x[NET_INPUT_ELEMENTS], y[NET_OUTPUT_ELEMENTS];\n"
        "int main(void) {\n"
        "    for (int i = 0; i < NET_INPUT_ELEMENTS; i++) x[i] = (float)(i % 7 - 3);\n"
        "    return net_run(x, y);\n"
        "}\n"
    )
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    files = [str(tmp_path / name) for name in ("main.c", "net.c")]
    program = tmp_path / "net"
    made = subprocess.run(
        [compiler, *WARNINGS, "-O1", "-g", *sanitizers, *files, "-lm", "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "cannot find" in made.stderr:
        pytest.skip("gcc is here without its sanitizers")
    assert made.returncode == 0, made.stderr
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_of_files_and_of_tensors_are_never_code(compiler, model, tmp_path):
    hostile = '*/ #error "\n'
    nodes = [helper.make_node("Relu", [hostile], ["int"])]
    done = emit_c(model(nodes, {}, {hostile: ["b", 5]}, ["int"]), tmp_path / "9 small-nets.c")
    assert done.function == "model_9_small_nets_run"
    assert "input: ____error___: float32 5" in done.header.read_text()
    command = [*compiler, *WARNINGS, "-c", str(done.source), "-o", str(tmp_path / "net.o")]
    subprocess.run(command, check=True, capture_output=True)


def test_the_header_is_cpp_too(model, tmp_path):
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler for this test")
    emit_c(model([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": ["b", 5]}), tmp_path / "net.c")
    (tmp_path / "main.cpp").write_text('#include "net.h"\nint (*run)(const float *, float *) = net_run;\n')
    command = [compiler, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c", "main.cpp", "-o", "main.o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_same_model_gives_the_same_text(tmp_path):
    texts = [emit_c(DIGITS, tmp_path / folder / "net.c").source.read_bytes() for folder in ("a", "b")]
    assert texts[0] == texts[1]
    for word in (b"immintrin", b"int64_t rows", b"malloc", b"pthread"):
        assert word not in texts[0]


def test_the_command_and_what_it_refuses(model, tmp_path, capsys):
    (tmp_path / "net.onnx").write_bytes(model([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": ["b", "n"]}))
    source, target = str(tmp_path / "net.onnx"), str(tmp_path / "net.c")
    assert main(["emit-c", source, target, "--shape", "1x5"]) == 0
    said = capsys.readouterr().out
    assert "net_run for one image" in said
    assert "input x: float32 5 an image" in said
    (tmp_path / "other.onnx").write_bytes(
        model([helper.make_node("Einsum", ["x"], ["y"], equation="bij->bji")], {}, {"x": ["b", 2, 2]})
    )
    for arguments, told in (
        ([source, target], "leaves its size open"),
        ([source, str(tmp_path / "net.tdc"), "--shape", "1x5"], "has to end in .c"),
        ([source, str(tmp_path / "string.c"), "--shape", "1x5"], "would hide C's own string.h"),
        ([source, str(tmp_path / "Math.c"), "--shape", "1x5"], "would hide C's own math.h"),
        ([source, str(tmp_path / "features.c"), "--shape", "1x5"], "would hide C's own features.h"),
        ([source, target, "--shape", "2x5"], "give 1 as the first size"),
        ([str(tmp_path / "other.onnx"), target], "Einsum"),
    ):
        assert main(["emit-c", *arguments]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.c", "net.h", "net.onnx", "other.onnx"]


def test_every_kernel_and_every_table_has_its_type_in_the_source():
    def tables(structure: type[Structure]) -> set[str]:
        found = set()
        for name, kind, *_ in structure._fields_:
            if kind is c_void_p:
                found.add(name)
            elif isinstance(kind, type) and issubclass(kind, Structure):
                found |= tables(kind)
        return found

    assert kernel_sources().keys() == OPERATIONS.keys()
    assert set().union(*(tables(structure) for _, structure in OPERATIONS.values())) <= c_types().keys()


def test_no_name_of_the_kernels_can_be_that_of_a_model():
    """NAME_run and NAME_..._ELEMENTS are all that is called after the file, which may have any name."""
    text = one_source(dict.fromkeys(kernel.file for kernel in kernel_sources().values()), {"TDC_NARROW": ""})
    assert re.findall(r"\b\w+_run\b|\b\w+_ELEMENTS\b", text) == []


def test_conditions_are_settled_where_they_can_be():
    text = one_source(["displace.h"], {"TDC_NARROW": ""})
    assert "_mm" not in text
    assert "SHUFFLE" not in text
    assert text.count("#if") == text.count("#endif") == 1  # whether there is an address to prefetch
    vectors = one_source(["displace.h"], {})
    assert "#if defined(__clang__)" in vectors
    assert vectors.count("#if") == vectors.count("#endif")
    with pytest.raises(FileNotFoundError):
        one_source(["none.c"], {})
