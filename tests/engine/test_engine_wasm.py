"""The module inside docs/demo/index.html, in wasmtime: kernels, and checks of plan files with addresses of 32 bits."""

from __future__ import annotations

import ctypes
import re
import shutil
import struct
import subprocess
from pathlib import Path

import c_interface
import demo_page
import numpy as np
import onnxruntime
import plan_seeds
import pytest
from engine_networks import lenet5, resnet32
from onnx import helper
from small_models import make_model
from wasm_module import WasmModule

from tdcompress.data.digits import load_split
from tdcompress.engine import compile_model
from tdcompress.engine.binding import OPERATIONS, ConvOp, TapGroup
from tdcompress.engine.compile import TARGETS
from tdcompress.engine.planfile import pointers, with_checksum

PROGRAM_AT, ARENA_AT = 112, 72
TOLERANCE = 1e-5  # of the largest output
SEEDS = pytest.mark.parametrize("make", plan_seeds.MODELS, ids=lambda make: make.__name__)


@pytest.fixture(scope="module")
def wasm() -> WasmModule:
    return WasmModule(demo_page.embedded("module"))


def plan_of(model: bytes, folder: Path) -> bytes:
    compile_model(model, folder / "model.tdc", isa="simd128")
    return (folder / "model.tdc").read_bytes()


def reference(model: bytes, name: str, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {name: x})[0]


def assert_agrees(wasm: WasmModule, model: bytes, name: str, x: np.ndarray, folder: Path) -> None:
    want = reference(model, name, x)
    (got,) = wasm.run(plan_of(model, folder), [x], [want[0].nbytes])
    np.testing.assert_allclose(got, want.reshape(len(x), -1), rtol=0, atol=TOLERANCE * np.abs(want).max())


@SEEDS
def test_every_kernel_gives_what_onnxruntime_gives(wasm, make, tmp_path):
    rng = np.random.default_rng(1)
    x = {
        "convolutions": rng.standard_normal((3, 3, 12, 12)).astype(np.float32),
        "rows": rng.standard_normal((3, 6, 5, 7)).astype(np.float32),
        "tokens": rng.integers(-7, 7, (3, 5)),
    }[make.__name__]
    assert_agrees(wasm, make(), "x", x, tmp_path)


@pytest.mark.parametrize("network", [lenet5(0.9), resnet32(0.9), resnet32(0.0)], ids=["lenet5", "resnet32@90", "resnet32@0"])
def test_whole_networks_give_what_onnxruntime_gives(wasm, network, tmp_path):
    x = np.random.default_rng(1).standard_normal((2, 3, 32, 32)).astype(np.float32)
    assert_agrees(wasm, network, "input", x, tmp_path)


def test_the_page_is_made_of_its_parts_and_names_its_digits(wasm):
    """That the module is of today's C source is seen where zig is: make wasm builds it anew."""
    plan = demo_page.build_plan()
    assert demo_page.PAGE.read_text(encoding="utf-8") == demo_page.render(demo_page.embedded("module"), plan)
    _, test = load_split()
    x = ((test.pixels.numpy().reshape(-1, 1, 8, 8) - np.float32(4.888)) / np.float32(6.018)).astype(np.float32)
    want = reference(demo_page.MODEL.read_bytes(), "input", x)
    (got,) = wasm.run(plan, [x], [40])
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE * np.abs(want).max())
    assert f"{100 * np.mean(got.argmax(axis=1) == test.labels.numpy()):.1f}" == demo_page.accuracy()


def test_the_module_is_written_into_a_new_folder(monkeypatch, tmp_path):
    """As in docs/wasm.md; a compiler is not needed for that."""
    monkeypatch.setattr(demo_page, "build_module", lambda: b"module")
    demo_page.main([str(tmp_path / "site" / "tdcompress.wasm")])
    assert (tmp_path / "site" / "tdcompress.wasm").read_bytes() == b"module"


def in_node(script: str, folder: Path) -> str:
    """What a module that imports tdcompress.js prints; its fetch reads files."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node for this test")
    shutil.copy(demo_page.HERE / "tdcompress.js", folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "tdcompress.wasm").write_bytes(demo_page.embedded("module"))
    files = 'import { readFileSync } from "node:fs";\nglobalThis.fetch = async (name) => new Response(readFileSync(name));\n'
    (folder / "page.js").write_text(files + script, encoding="utf-8")
    done = subprocess.run([node, "page.js"], cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("batch", ["b", 1, 2])
def test_the_page_of_the_documentation(batch, tmp_path):
    """Of a model that leaves its batch open, or fixes it; the image is zeros, so the scores are the bias."""
    text = (demo_page.HERE.parent / "wasm.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r'<script type="module">\n(.*?)</script>', text, flags=re.DOTALL)
    constants = {"w": np.ones((4, 3), np.float32), "bias": np.array([0, 3, 1], np.float32)}
    plan_of(make_model([helper.make_node("Gemm", ["x", "w", "bias"], ["y"])], constants, {"x": [batch, 4]}), tmp_path)
    assert (
        in_node(shown + "console.log(Array.from(scores).join());", tmp_path)
        == f"1\n{','.join(['0,3,1'] * (2 if batch == 2 else 1))}\n"
    )


def test_a_page_is_told_what_it_gave(tmp_path):
    plan_of(make_model([helper.make_node("Sub", ["p", "q"], ["y"])], {}, {"p": [2, 3], "q": [2, 3]}), tmp_path)
    script = """
        import { Model } from "./tdcompress.js";
        const bytes = async (name) => new Uint8Array(await (await fetch(name)).arrayBuffer());
        const module = await bytes("tdcompress.wasm"), plan = await bytes("model.tdc");
        const model = await Model.load(module, plan);
        const p = Float32Array.of(1, 2, 3, 4, 5, 6), q = Float32Array.of(1, 1, 1, 2, 2, 2);
        console.log(model.images, Array.from(model.run([p, q])[0]).join());
        const tries = [
            ...[undefined, p, [p], [p, q, q], [p, [1, 2]], [p, q.subarray(3)]].map((given) => () => model.run(given)),
            ...[undefined, plan.buffer].map((given) => () => Model.load(module, given)),
        ];
        for (const attempt of tries)
            try {
                await attempt();
                console.log("no error");
            } catch (error) {
                console.log(error.name, error.message);
            }
    """
    said = in_node(script, tmp_path).splitlines()
    count = "TypeError give a list of as many typed arrays as the model has inputs, 2: p, q"
    assert said == [
        "2 0,1,2,2,3,4",
        *[count] * 4,
        *["TypeError q: give a Float32Array of 6 numbers"] * 2,
        *["TypeError give the plan file as a Uint8Array"] * 2,
    ]


def test_its_structures_are_those_of_the_files(wasm):
    for code, structure in OPERATIONS.values():
        assert wasm.call("tdc_sizeof", code) == ctypes.sizeof(structure)
    assert wasm.read(wasm.call("tdc_best_isa"), 8) == b"simd128\0"


def test_plans_for_other_instruction_sets_are_refused(wasm, tmp_path):
    for isa in TARGETS:
        compile_model(demo_page.MODEL, tmp_path / "model.tdc", isa=isa)
        assert wasm.status((tmp_path / "model.tdc").read_bytes()) == (c_interface.OK if isa == "simd128" else c_interface.ISA)


def addresses(plan: bytes) -> list[int]:
    """Where in a file the offsets are that become addresses."""
    (at, count) = (struct.unpack_from("<q", plan, place)[0] for place in (PROGRAM_AT, ARENA_AT + 8))
    found = []
    structures = dict(OPERATIONS.values())
    for _ in range(count):
        structure = structures[struct.unpack_from("<q", plan, at)[0]]
        found += [
            place for place in pointers(structure, at + 8) if place != at + 8 + ConvOp.groups.offset or structure is not ConvOp
        ]
        at += 8 + ctypes.sizeof(structure)
        if structure is ConvOp:
            (groups,) = struct.unpack_from("<q", plan, at - ctypes.sizeof(structure) + ConvOp.group_count.offset)
            for _ in range(groups):
                found += pointers(TapGroup, at)
                at += ctypes.sizeof(TapGroup)
    return found


@SEEDS
def test_an_offset_that_only_its_low_half_makes_valid_is_refused(wasm, make, tmp_path):
    good = plan_of(make(), tmp_path)
    used = [place for place in addresses(good) if struct.unpack_from("<q", good, place)[0]]
    assert len(used) > 3
    assert wasm.status(good) == c_interface.OK
    for place in used:
        (offset,) = struct.unpack_from("<q", good, place)
        for wrong in (offset + (1 << 32), offset - (1 << 32), offset | 1 << 62):
            damaged = bytearray(good)
            struct.pack_into("<q", damaged, place, wrong)
            assert wasm.status(with_checksum(bytes(damaged))) == c_interface.FORMAT, place


@SEEDS
def test_any_number_of_a_program_may_be_wrong(wasm, make, tmp_path):
    """Sizes and strides that overflow 32 bits, also in products: the checks never read outside the memory, which is a trap."""
    good = plan_of(make(), tmp_path)
    start, size = struct.unpack_from("<2q", good, PROGRAM_AT)
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.permutation(np.arange(start, start + size, 8))[:150].tolist():
        (value,) = struct.unpack_from("<q", good, place)
        for wrong in (value + (1 << 32), 1 << 31, 1 << 30, -1):
            damaged = bytearray(good)
            struct.pack_into("<q", damaged, place, wrong)
            status = wasm.status(with_checksum(bytes(damaged)))
            assert status in (c_interface.OK, c_interface.FORMAT), (place, wrong)
            refused += status == c_interface.FORMAT
    assert refused > 300


def test_memory_that_32_bits_do_not_reach(wasm, tmp_path):
    good = plan_of(plan_seeds.rows(), tmp_path)

    def with_arena(elements: int) -> bytes:
        return with_checksum(good[:ARENA_AT] + struct.pack("<q", elements) + good[ARENA_AT + 8 :])

    assert wasm.status(with_arena(1 << 29)) == c_interface.MEMORY  # 2 GiB: more than an array may have
    assert wasm.status(with_arena((1 << 29) + 1)) == c_interface.FORMAT
    assert wasm.status(with_arena(1 << 61)) == c_interface.FORMAT
    assert wasm.status(good) == c_interface.OK


def test_damaged_files(wasm, tmp_path):
    good = plan_of(plan_seeds.rows(), tmp_path)
    for place in range(0, len(good), 61):
        damaged = bytearray(good)
        damaged[place] ^= 1 << place % 8
        assert wasm.status(bytes(damaged)) != c_interface.OK, place
    for data in (b"", good[:50], good[:-64], good + bytes(64)):
        assert wasm.status(data) in (c_interface.FORMAT, c_interface.CHECKSUM)
