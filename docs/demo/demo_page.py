"""Make docs/demo/index.html: page.html with the engine's module, the digits' plan and a few of their images inside.

Usage, from the repository's root: python docs/demo/demo_page.py        Needs the ziglang wheel.
`python docs/demo/demo_page.py tdcompress.wasm` writes the module alone, for pages of your own (docs/wasm.md).
"""

from __future__ import annotations

import base64
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

from tdcompress.data.digits import load_split
from tdcompress.engine import compile_model
from tdcompress.engine.build import KERNEL_FILES, SOURCE

HERE = Path(__file__).parent
PAGE, MODEL = HERE / "index.html", HERE / "digits.onnx"
ISA = "simd128"
CORE_FILES = ("run.c", "load.c", "check.c", "check_layers.c", "model.c")
FUNCTIONS = (
    *("malloc", "free", "tdc_load_memory", "tdc_share", "tdc_count", "tdc_shape", "tdc_run", "tdc_free", "tdc_message"),
    *("tdc_best_isa", "tdc_sizeof"),
)
"""What the module exports: tdc_load is not among them, since a page has no files. It imports nothing."""
FLAGS = (
    *("-target", "wasm32-wasi", "-mexec-model=reactor", "-msimd128", f"-DTDC_SUFFIX={ISA}"),
    *("-std=gnu11", "-O3", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=fast"),
    *("-D_WASI_EMULATED_MMAN", "-lwasi-emulated-mman", "-Wl,--strip-all"),
    *(f"-Wl,--export={name}" for name in FUNCTIONS),
)


def build_module() -> bytes:
    """The engine as a WebAssembly module with vectors of 128 bits.

    Raises:
        SystemExit: there is no compiler for it.
    """
    if importlib.util.find_spec("ziglang") is None:
        raise SystemExit("demo_page.py: no compiler for WebAssembly; pip install ziglang")
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "tdcompress.wasm"
        files = [str(SOURCE / name) for name in (*KERNEL_FILES, *CORE_FILES)]
        subprocess.run([sys.executable, "-m", "ziglang", "cc", *FLAGS, *files, "-o", str(module)], check=True)
        return module.read_bytes()


def build_plan() -> bytes:
    """The plan of digits.onnx for the module."""
    with tempfile.TemporaryDirectory() as folder:
        compile_model(MODEL, Path(folder) / "digits.tdc", isa=ISA)
        return (Path(folder) / "digits.tdc").read_bytes()


def accuracy() -> str:
    """What digits.onnx was measured to name right under onnxruntime, in percent."""
    entries = {entry.key: entry.value for entry in onnx.load(MODEL).metadata_props}
    return f"{100 * float(entries['accuracy']):.1f}"


def render(module: bytes, plan: bytes) -> str:
    """The page with its parts."""
    _, test = load_split()
    images = test.pixels[[int((test.labels == digit).nonzero()[0]) for digit in range(10)]].numpy()
    parts = {
        "accuracy": accuracy(),
        "module_kilobytes": f"{len(module) / 1000:.0f}",
        "plan_kilobytes": f"{len(plan) / 1000:.0f}",
        "module": base64.b64encode(module).decode(),
        "plan": base64.b64encode(plan).decode(),
        "examples": base64.b64encode(images.tobytes()).decode(),
        "script": (HERE / "tdcompress.js").read_text(encoding="utf-8"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], (HERE / "page.html").read_text(encoding="utf-8"))


def embedded(name: str) -> bytes:
    """A part of the page that is there."""
    found = re.search(rf'<script type="text/plain" id="{name}">([^<]*)</script>', PAGE.read_text(encoding="utf-8"))
    assert found is not None, f"index.html has no {name}"
    return base64.b64decode(found[1])


def main(arguments: list[str]) -> None:
    """Write the page, or the module alone to a path that is given."""
    module = build_module()
    if arguments:
        target = Path(arguments[0])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(module)
        return
    plan = build_plan()
    PAGE.write_text(render(module, plan), encoding="utf-8")
    print(f"{PAGE.name}: {PAGE.stat().st_size:,} bytes, of them (before base64) module {len(module):,} and plan {len(plan):,}")


if __name__ == "__main__":
    main(sys.argv[1:])
