"""Scripts around the engine say in one line what is missing or wrong, before they do anything."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import counts
import demo_page
import fresh
import pytest

ROOT = Path(__file__).parents[2]
WHEELS = (sys.executable, str(ROOT / ".ci" / "wheels.py"))
CHECKS = (
    ("engine/sanitize.sh", "no gcc; Debian: apt-get install gcc"),
    ("engine/fuzz.sh", "no gcc; Debian: apt-get install gcc"),
    ("engine/valgrind.sh", "no gcc; Debian: apt-get install gcc"),
    ("engine/provider.sh", "no gcc or no g++; Debian: apt-get install g++"),
    ("engine/neon.sh", "no zig; pip install ziglang"),
    ("engine/neon_count.sh", "no C compiler for the counting plugin of qemu; Debian: apt-get install gcc"),
    (
        "engine/cortex_m.sh",
        "no arm-none-eabi-gcc; Debian: apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm",
    ),
    ("engine/wheels.sh", "no zig; pip install ziglang"),
    ("engine/wasm.sh", "pip install ziglang playwright"),
    ("onnxfile/haswell.sh", "no qemu-x86_64; Debian: apt-get install qemu-user"),
)
"""Script of a target -> what it says where nothing is installed."""


def said(*command: str, **environment: str) -> tuple[int, str]:
    """(status, stderr) of a command at the repository's root."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(("script", "missing"), CHECKS)
def test_a_check_names_the_package_that_it_lacks(script, missing, tmp_path):
    tools(tmp_path)
    status, text = said(
        "/bin/sh", f"tests/{script}", "folder", PATH=str(tmp_path), PYTHON="/bin/false", ZIG="/bin/false", CC="cc"
    )
    assert (status, text) == (1, f"{Path(script).name}: {missing}\n")


def test_valgrind_is_missed_where_gcc_is_there(tmp_path):
    tools(tmp_path)
    (tmp_path / "gcc").symlink_to("/bin/false")
    status, text = said("/bin/sh", "tests/engine/valgrind.sh", PATH=str(tmp_path), PYTHON="/bin/false")
    assert (status, text) == (1, "valgrind.sh: no valgrind; Debian: apt-get install valgrind\n")


def tools(folder: Path) -> None:
    """What a script calls before it looks for its compiler."""
    for name in ("basename", "mktemp", "rm"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)


def test_every_script_with_a_target_is_tried_here():
    tried = {script for script, _ in CHECKS}
    named = {word.removeprefix("tests/") for word in (ROOT / "Makefile").read_text("utf-8").split() if word.endswith(".sh")}
    assert named == tried


def test_wheels_are_named_as_the_documentation_names_them(tmp_path):
    usage = "usage: wheels.py [-h] FOLDER [TAG ...]\nwheels.py: error: "
    status, text = said(*WHEELS)
    assert (status, text) == (2, f"{usage}the following arguments are required: FOLDER\n")
    known = (
        "manylinux_2_17_x86_64, manylinux_2_17_aarch64, musllinux_1_2_x86_64, musllinux_1_2_aarch64, macosx_11_0_x86_64, "
        "macosx_11_0_arm64, any"
    )
    status, text = said(*WHEELS, str(tmp_path / "wheels"), "manylinux_2_17_ppc64le")
    wrong = f"argument TAG: there is no wheel 'manylinux_2_17_ppc64le'; wheels are {known}"
    assert (status, text) == (2, f"{usage}{wrong}\n")
    table = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8").split("| wheel |")[1].split("\n\n")[0]
    for name in known.split(", "):
        assert f"`{name}`" in table
    for name in (*known.split(", ")[:-1], "manylinux2014_aarch64", "manylinux_2_17_aarch64.manylinux2014_aarch64"):
        assert said(*WHEELS, str(tmp_path / "wheels"), name, ZIG="/bin/false") == (1, "wheels.py: no zig; pip install ziglang\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("document", "language", "opened"),
    [
        ("boards.md", "c", {"firmware/model.h"}),
        ("c.md", "c", {"deploy/tdcompress.h"}),
        ("wasm.md", "html", {"site/tdcompress.js", "site/tdcompress.wasm", "site/model.tdc"}),
    ],
)
def test_examples_open_what_the_shell_lines_beside_them_write(document, language, opened):
    """Names are relative to the folder that the shell lines fill; docs/provider.md is tried in test_engine_provider.py."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL)
    words = {word for name, block in blocks if name == "sh" for word in re.sub("#.*", "", block).split()}
    (folder,) = {Path(name).parent for name in opened}
    made = words | {f"{folder}/{Path(word).stem}.h" for word in words if word.endswith(".c")}
    made |= {f"{folder}/tdcompress.h"} if str(folder) in words else set()
    made |= {f"{folder}/{Path(word).name}" for word in words if f"{folder}/" in words}
    quoted = {name for kind, block in blocks if kind == language for name in re.findall(r'"(?:\./)?([\w.]+\.\w+)"', block)}
    assert {f"{folder}/{name}" for name in quoted} == opened
    assert opened <= made


def test_a_page_without_its_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr(demo_page.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"^demo_page\.py: no compiler for WebAssembly; pip install ziglang$"):
        demo_page.main([str(tmp_path / "tdcompress.wasm")])
    assert not list(tmp_path.iterdir())


def test_counts_of_benchmarks():
    assert [counts.PROCESSES("2"), counts.PAIRS("10"), counts.PAIRS("120"), counts.at_least(1)("1")] == [2, 10, 120, 1]
    for kind, text, wanted in (
        (counts.PROCESSES, "1", "2 or more"),
        (counts.PROCESSES, "two", "2 or more"),
        (counts.PAIRS, "0", "a multiple of 10, 10 or more"),
        (counts.PAIRS, "25", "a multiple of 10, 10 or more"),
        (counts.at_least(1), "-3", "1 or more"),
    ):
        with pytest.raises(argparse.ArgumentTypeError) as refused:
            kind(text)
        assert str(refused.value) == f"{text} is not {wanted}"


def test_what_a_fresh_process_prints_and_how_it_ended():
    assert fresh.printed([sys.executable, "-c", "print(7)"]) == "7\n"
    with pytest.raises(SystemExit, match=r"9\) ended with -9$"):
        fresh.printed([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])


@pytest.mark.parametrize("benchmark", ["pack_load.py", "engine_latency.py"])
def test_a_benchmark_of_one_process_is_refused_at_once(benchmark):
    status, text = said(sys.executable, f"benchmarks/{benchmark}", "--processes", "1")
    assert status == 2
    assert text.endswith(f"{benchmark}: error: argument --processes: 1 is not 2 or more\n")
