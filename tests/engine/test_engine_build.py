"""Compiling: which compiler, where to, and what is said when there is none."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from tdcompress.engine import build
from tdcompress.engine.binding import OPERATIONS
from tdcompress.errors import TdcompressError, UnsupportedError


def test_no_compiler_says_what_to_install(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("TDCOMPRESS_ENGINE_LIBRARY", raising=False)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match="pip install ziglang"):
        build.library_path()


def test_a_compiler_that_fails_is_named(monkeypatch, tmp_path):
    with pytest.raises(UnsupportedError, match="false"):
        build.build(("false",), tmp_path / "library.so", machine="x86_64")
    with pytest.raises(UnsupportedError, match="not-there"):
        build.build((str(tmp_path / "not-there"),), tmp_path / "library.so", machine="x86_64")
    assert not list(tmp_path.iterdir())


def test_the_ziglang_wheel_is_the_last_choice(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: object())
    assert build.find_compiler() == (sys.executable, "-m", "ziglang", "cc")


def test_a_build_is_published_whole_and_portable_code_compiles(tmp_path):
    """The portable kernels alone, for a machine that no table names."""
    compiler = build.find_compiler()
    if compiler is None:
        pytest.skip("no compiler for this test")
    library = tmp_path / "cache" / "library.so"
    build.build(compiler, library, machine=build.machine_name(), extra=("-O0",))
    assert [path.name for path in library.parent.iterdir()] == ["library.so"]
    assert ctypes.CDLL(str(library)).tdc_sizeof(0) == ctypes.sizeof(OPERATIONS["conv_sparse"][1])


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TdcompressError, match="TDCOMPRESS_CACHE"):
        build.build(("cc",), tmp_path / "file" / "library.so", machine="x86_64")


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TDCOMPRESS_CACHE", str(tmp_path))
    assert build.cache_folder() == tmp_path
    monkeypatch.delenv("TDCOMPRESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache_folder().parent == tmp_path or sys.platform == "darwin"


def test_no_torch_is_imported():
    code = "import sys; sys.modules['torch'] = None; import tdcompress.engine"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_processes_that_build_at_the_same_time_end_with_one_whole_library(tmp_path):
    """Each compiles in a folder of its own and renames; whoever is last replaces a library by an equal one."""
    if build.find_compiler() is None:
        pytest.skip("no compiler for this test")
    code = (
        "import sys\nfrom pathlib import Path\nfrom tdcompress.engine import build\n"
        "build.build(build.find_compiler(), Path(sys.argv[1]), machine='portable', extra=('-O0',))"
    )
    library = tmp_path / "cache" / "library.so"
    builders = [subprocess.Popen([sys.executable, "-c", code, str(library)]) for _ in range(3)]
    assert [builder.wait(timeout=300) for builder in builders] == [0, 0, 0]
    assert [path.name for path in library.parent.iterdir()] == ["library.so"]


def test_a_library_that_another_process_is_replacing_can_be_loaded(tmp_path):
    """A rename never shows a part of a file: a library that was opened before stays whole."""
    if build.find_compiler() is None:
        pytest.skip("no compiler for this test")
    library = tmp_path / "library.so"
    build.build(build.find_compiler(), library, machine=build.machine_name(), extra=("-O0",))
    loaded = ctypes.CDLL(str(library))
    build.build(build.find_compiler(), library, machine=build.machine_name(), extra=("-O0",))
    assert loaded.tdc_sizeof(0) == ctypes.sizeof(OPERATIONS["conv_sparse"][1])
