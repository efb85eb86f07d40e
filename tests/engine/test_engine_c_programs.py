"""Programs in C against the copied library: the one of docs/c.md, and damaged files."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import plan_seeds
import pytest
from engine_networks import lenet5
from onnx import helper
from small_models import make_model

from tdcompress.data.digits import load_split
from tdcompress.engine import Session, compile_model, copy_library
from tdcompress.engine.binding import OPERATIONS
from tdcompress.engine.build import SOURCE, find_compiler
from tdcompress.engine.compile import TARGETS
from tdcompress.engine.plan import make_plan
from tdcompress.engine.read import read_graph

ROOT = Path(__file__).parents[2]


def with_batch(file: Path, batch: int) -> bytes:
    """A model, fixed to a batch."""
    model = onnx.load(file)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    return model.SerializeToString()


@pytest.fixture(scope="module")
def build() -> Callable[..., Path]:
    """Compiles a program against a copy of the library, with every warning an error."""
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("no compiler for this test")

    def program(source: Path, folder: Path, *flags: str) -> Path:
        copy_library(folder)
        output = folder / source.stem
        named = [f"-I{folder}", str(source), f"-L{folder}", "-ltdcompress", f"-Wl,-rpath,{folder}", "-o", str(output)]
        warnings = ["-Wall", "-Wextra", "-Werror"]
        done = subprocess.run([*compiler, *warnings, *flags, *named], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return output

    return program


def test_the_program_of_the_documentation_classifies_digits(build, tiny_run, tmp_path):
    text = (ROOT / "docs" / "c.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```c\n(.*?)```", text, flags=re.DOTALL)
    assert shown == (ROOT / "docs" / "digit.c").read_text(encoding="utf-8")
    program = build(ROOT / "docs" / "digit.c", tmp_path, "-std=c11", "-pedantic")
    _, test = load_split()
    pixels = test.pixels.numpy()
    row = next(row for row in json.loads((tiny_run / "report.json").read_text("utf-8"))["rows"] if row["values"] == "float32")
    file = tiny_run / row["onnx_file"]
    compile_model(file, tmp_path / "model.tdc")
    images = " ".join(map(str, pixels.reshape(-1)))
    done = subprocess.run([str(program), str(tmp_path / "model.tdc")], input=images, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    got = np.array(done.stdout.split(), np.int64)
    session = Session(file)
    ready = (pixels.astype(np.float32).transpose(0, 3, 1, 2) - np.float32(4.888)) / np.float32(6.018)
    (logits,) = session.run(None, {session.get_inputs()[0].name: ready})
    np.testing.assert_array_equal(got, logits.argmax(axis=1))
    ties = 2.001 / len(got)  # the runtime of the report may round a tie otherwise
    assert np.mean(got == test.labels.numpy()) == pytest.approx(row["accuracy_onnx"], abs=ties)
    assert len(shown.splitlines()) <= 30
    compile_model(with_batch(file, 2), tmp_path / "two.tdc")
    compile_model(lenet5(0.9), tmp_path / "other.tdc")
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
    pair = make_model(nodes, {"w": np.ones((64, 10), np.float32)}, {"x": ["b", 64]}, ("y", "z"))
    compile_model(pair, tmp_path / "pair.tdc")
    image = " ".join(images.split()[:64])
    for model, given, out, told in (
        ("model.tdc", "", "", None),
        ("model.tdc", f"{image}\n", f"{got[0]}\n", None),
        ("model.tdc", f"{image} 1 2 3", f"{got[0]}\n", "the last image is not 64 whole numbers"),
        ("model.tdc", f"{image} x {image}", f"{got[0]}\n", "the last image is not 64 whole numbers"),
        ("two.tdc", image, "", "the model does not take this batch size"),
        ("other.tdc", image, "", "the model reads no digits"),
        ("pair.tdc", image, "", "the model reads no digits"),
        ("none.tdc", image, "", "cannot be opened"),
    ):
        done = subprocess.run([str(program), str(tmp_path / model)], input=given, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (told is not None, out)
        assert done.stderr.count("\n") == (told is not None)
        assert told is None or told in done.stderr


ASKED = """
#include <cpuid.h>
#include <stdio.h>
static int asked;
#define __get_cpuid(...) (asked++, __get_cpuid(__VA_ARGS__))
#include "run.c"
const tdc_isa tdc_isa_scalar = {0}, tdc_isa_avx2 = {0}, tdc_isa_avx512 = {0};
int main(void) {
    for (int call = 0; call < 3; call++)
        for (int64_t index = 0; index < ISA_SLOTS; index++) tdc_isa_at(index);
    return printf("%d\\n", asked) < 0;
}
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other processors are not asked")
def test_the_processor_is_asked_once(build, tmp_path):
    """Each run looks for its instruction set, and in a virtual machine each CPUID takes microseconds."""
    (tmp_path / "asked.c").write_text(ASKED)
    program = build(tmp_path / "asked.c", tmp_path, "-std=gnu11", f"-I{SOURCE}")
    assert subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout == "1\n"


MODES = """
#define _GNU_SOURCE
#include <fenv.h>
#include <stdio.h>
#include "tdcompress.h"
int main(int count, char **arguments) {
    tdc_model *model;
    if (count != 2 || tdc_load(arguments[1], &model) != TDC_OK) return 1;
    const float numbers[] = {0.1f, 0, 3};
    float roots[3];
    const void *inputs[] = {numbers};
    float *outputs[] = {roots};
    fesetround(FE_UPWARD);
    feenableexcept(FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW);
    if (tdc_run(model, inputs, outputs, 1) != TDC_OK) return 2;
    if (fegetround() != FE_UPWARD || fegetexcept() != (FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW)) return 3;
    fesetenv(FE_DFL_ENV);
    printf("%a %a %a\\n", (double)roots[0], (double)roots[1], (double)roots[2]);
    tdc_free(model);
    return 0;
}
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64") or sys.platform != "linux", reason="traps of glibc on x86")
def test_the_rounding_and_the_traps_of_a_program_do_not_reach_its_models(build, tmp_path):
    """1 / 0 would end the program, and another rounding give other bits than Python has; both are as before afterwards."""
    nodes = [helper.make_node("Sqrt", ["x"], ["r"]), helper.make_node("Reciprocal", ["r"], ["y"])]
    model = make_model(nodes, {}, {"x": ["b", 3]})
    compile_model(model, tmp_path / "model.tdc")
    (tmp_path / "modes.c").write_text(MODES)
    program = build(tmp_path / "modes.c", tmp_path, "-Wl,--no-as-needed", "-lm")
    done = subprocess.run([str(program), str(tmp_path / "model.tdc")], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    (want,) = Session(model).run(None, {"x": np.array([[0.1, 0, 3]], np.float32)})
    assert [float.fromhex(text) if text != "inf" else np.inf for text in done.stdout.split()] == want[0].tolist()


def test_the_header_is_c_and_cpp(tmp_path):
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler for this test")
    source = tmp_path / "main.cpp"
    source.write_text(
        '#include "tdcompress.h"\nint main() { return tdc_count(nullptr, TDC_INPUT) == 0 ? TDC_OK : TDC_ERROR_FORMAT; }\n'
    )
    _, library = copy_library(tmp_path)
    flags = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{tmp_path}"]
    command = [compiler, *flags, str(source), str(library), f"-Wl,-rpath,{tmp_path}", "-o", str(tmp_path / "main")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([str(tmp_path / "main")], check=False).returncode == 0


def test_the_seeds_have_every_kernel():
    codes = {code: name for name, (code, _) in OPERATIONS.items()}
    found = set()
    for make in plan_seeds.MODELS:
        graph = read_graph(make())
        plan = make_plan(graph, {value.name: value.shape[1:] for value in graph.inputs}, None, TARGETS["scalar"])
        found |= {codes[op.kind] for op in plan.ops[: plan.op_count]}
    assert found == set(OPERATIONS)


def test_damaged_files_give_a_status_and_never_a_crash(build, tmp_path):
    """`make fuzz` does this for five minutes with sanitizers."""
    program = build(ROOT / "tests" / "engine" / "fuzz_plan.c", tmp_path, "-O1", "-std=gnu11", f"-I{SOURCE}")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    plan_seeds.main(seeds)
    done = subprocess.run([str(program), "5000", *map(str, seeds.iterdir())], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    ran, accepted, refused, damaged = map(int, re.search(r"(\d+) ran; 0: (\d+).* 3: (\d+).* 5: (\d+)", done.stdout).groups())
    assert 200 < ran <= accepted
    assert refused > 2000
    assert damaged > 100
