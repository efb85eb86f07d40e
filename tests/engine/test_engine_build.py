"""Compiling: which compiler, where to, and what is said when there is none."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tdcompress.engine import build
from tdcompress.engine.binding import OPERATIONS, Library
from tdcompress.errors import TdcompressError, UnsupportedError, UserError
from tdcompress.processor import read_processor

# A compiler that does not optimise, and that compiles the same source with the same flags once: these tests look at files.
# A library is made of some 40 files, so it is a shell's: a Python takes longer to start than most of them to be copied.
QUICK = """\
#!/bin/sh
case " $* " in *" -c "*) ;; *) exec {compiler} "$@" -O0 ;; esac
flags= previous=
for word; do
    case $previous in
        -c) source=$word ;;
        -o) output=$word ;;
        *) flags="$flags $word" ;;
    esac
    previous=$word
done
kept={folder}/${{source##*/}}-$({{ echo "$flags"; cat "$source" "${{source%/*}}"/*.h; }} | cksum | tr ' ' -)
if [ ! -e "$kept" ]; then
    {compiler} "$@" -O0 || exit
    cp "$output" "$kept.$$" && mv "$kept.$$" "$kept" || exit
fi
exec cp "$kept" "$output"
"""


@pytest.fixture(scope="session")
def quick_compiler(once: Callable[..., Path]) -> str:
    """The path of QUICK."""
    found = build.find_compiler()
    if found is None:
        pytest.skip("no compiler for this test")

    def make(folder: Path) -> None:
        (folder / "objects").mkdir()
        script = folder / "quick-cc"
        script.write_text(QUICK.format(compiler=shlex.join(found), folder=shlex.quote(str(folder / "objects"))))
        script.chmod(0o755)

    return str(once("compiler", make) / "quick-cc")


def test_no_compiler_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("TDCOMPRESS_CACHE", str(tmp_path))
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


def test_a_build_is_published_whole_and_portable_code_compiles(tmp_path, quick_compiler):
    """The portable kernels alone, for a machine that no table names."""
    library = tmp_path / "cache" / "library.so"
    build.build((quick_compiler,), library, machine=build.machine_name())
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


def test_processes_that_build_at_the_same_time_end_with_one_whole_library(tmp_path, quick_compiler):
    """Each compiles in a folder of its own and renames; whoever is last replaces a library by an equal one."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom tdcompress.engine import build\n"
        "build.build((sys.argv[2],), Path(sys.argv[1]), machine='portable')"
    )
    library = tmp_path / "cache" / "library.so"
    builders = [subprocess.Popen([sys.executable, "-c", code, str(library), quick_compiler]) for _ in range(3)]
    assert [builder.wait(timeout=300) for builder in builders] == [0, 0, 0]
    assert [path.name for path in library.parent.iterdir()] == ["library.so"]


def test_a_library_that_another_process_is_replacing_can_be_loaded(tmp_path, quick_compiler):
    """A rename never shows a part of a file: a library that was opened before stays whole."""
    library = tmp_path / "library.so"
    build.build((quick_compiler,), library, machine=build.machine_name())
    loaded = ctypes.CDLL(str(library))
    build.build((quick_compiler,), library, machine=build.machine_name())
    assert loaded.tdc_sizeof(0) == ctypes.sizeof(OPERATIONS["conv_sparse"][1])


def load(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Load the engine in a process of its own, with a cache folder and an environment."""
    code = "from tdcompress.engine import unavailable_reason; print(unavailable_reason())"
    kept = {name: value for name, value in os.environ.items() if name not in ("CC", "TDCOMPRESS_ENGINE_LIBRARY")}
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**kept, "TDCOMPRESS_CACHE": str(folder), **environment},
    )


def test_the_cache_is_found_without_a_compiler_and_a_damaged_library_is_made_anew(tmp_path, quick_compiler):
    cache = tmp_path / "cache"
    first = load(cache, CC=quick_compiler)
    assert (first.stdout, first.returncode) == ("None\n", 0)
    assert first.stderr.count("\n") == 1
    assert "compiling the engine's kernels" in first.stderr
    (library,) = cache.iterdir()
    again = load(cache, CC="no-compiler-here")
    assert (again.stdout, again.stderr, again.returncode) == ("None\n", "", 0)
    whole = library.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:-1] + b"x"):
        library.write_bytes(damaged)
        assert build.find_library(cache, build.this_platform()) is None
        refused = load(cache, CC="no-compiler-here")
        assert "no-compiler-here" in refused.stdout
        assert refused.returncode == 0
    mended = load(cache, CC=quick_compiler)
    assert (mended.stdout, mended.returncode) == ("None\n", 0)
    assert library.read_bytes() == whole


@pytest.mark.parametrize(("compiler", "text"), [("echo", "made nothing"), ("false", "ended with 1")])
def test_what_is_no_compiler_is_named(compiler, text, tmp_path):
    with pytest.raises(UnsupportedError, match=f"{compiler}.*{text}"):
        build.make_library((compiler,), tmp_path, replace(build.this_platform(), machine="portable"))
    assert not list(tmp_path.iterdir())


def test_another_library_is_refused(tmp_path):
    compiler = build.find_compiler()
    if compiler is None:
        pytest.skip("no compiler for this test")
    source, library = tmp_path / "other.c", tmp_path / "other.so"
    source.write_text("int other(void) { return 1; }\n")
    subprocess.run([*compiler, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    found = load(tmp_path / "cache", TDCOMPRESS_ENGINE_LIBRARY=str(library))
    advice = "TDCOMPRESS_ENGINE_LIBRARY names it: name another one, or unset it\n"
    assert "other.so is another library" in found.stdout
    assert found.stdout.endswith(advice)
    text = tmp_path / "text.so"
    text.write_text("no library")
    found = load(tmp_path / "cache", TDCOMPRESS_ENGINE_LIBRARY=str(text))
    assert "text.so cannot be loaded" in found.stdout
    assert found.stdout.endswith(advice)


def test_a_cached_library_that_does_not_load_is_to_be_deleted(monkeypatch):
    monkeypatch.delenv("TDCOMPRESS_ENGINE_LIBRARY", raising=False)
    assert build.instead() == "delete it and try again"


def build_wheel(folder: Path, compiler: str, **environment: str) -> Path:
    """A wheel of this package, built in a copy of the source.

    Raises:
        AssertionError: that fails; with what was said.
    """
    root = Path(build.__file__).parents[2]
    source = folder / "source"
    ignore = shutil.ignore_patterns("__pycache__", "compiled")
    shutil.copytree(root / "tdcompress", source / "tdcompress", ignore=ignore)
    shutil.copytree(root / "pipelines", source / "pipelines")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(root / name, source / name)
    command = [sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", str(folder / "wheels")]
    done = subprocess.run(
        command, cwd=source, env={**os.environ, "CC": compiler, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (folder / "wheels").iterdir()
    return wheel


def test_a_wheel_holds_the_library_if_there_is_a_compiler(tmp_path, quick_compiler):
    wheel = build_wheel(tmp_path, quick_compiler)
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)], check=True
    )
    (library,) = (site / "tdcompress" / "engine" / "compiled").iterdir()
    assert ctypes.CDLL(str(library)).tdc_sizeof(0) == ctypes.sizeof(OPERATIONS["conv_sparse"][1])
    found = load(tmp_path / "cache", PYTHONPATH=str(site), CC="no-compiler-here")
    assert (found.stdout, found.stderr) == ("None\n", "")
    assert not (tmp_path / "cache").exists()


def test_a_wheel_is_built_without_a_compiler_that_works(tmp_path):
    with zipfile.ZipFile(build_wheel(tmp_path, "not-there")) as archive:
        names = archive.namelist()
    assert [name for name in names if name.endswith("tdcompress/engine/csrc/run.c")]
    assert not [name for name in names if name.endswith(".so")]


def test_a_wheel_for_another_platform_has_its_tag_and_the_library_that_is_looked_for_there(tmp_path, quick_compiler):
    """The compiler is this machine's: what is looked at are names. `make wheels` cross-compiles, and runs what it makes."""
    tag = "manylinux_2_17_aarch64.manylinux2014_aarch64"
    wheel = build_wheel(tmp_path, quick_compiler, TDCOMPRESS_WHEEL=tag)
    assert wheel.name.endswith(f"-py3-none-{tag}.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        (record,) = [name for name in archive.namelist() if name.endswith(".dist-info/WHEEL")]
        told = archive.read(record).decode().splitlines()
    assert {"Root-Is-Purelib: false", *(f"Tag: py3-none-{each}" for each in tag.split("."))} <= set(told)
    compiled = tmp_path / "site" / "tdcompress" / "engine" / "compiled"
    (library,) = compiled.iterdir()
    there = build.Platform(machine="aarch64", system="linux", glibc=True)
    assert build.find_library(compiled, there) == library
    for other in (replace(there, machine="x86_64"), replace(there, glibc=False), replace(there, system="darwin", glibc=False)):
        assert build.find_library(compiled, other) is None


def test_a_wheel_for_another_platform_is_not_built_without_a_library(tmp_path):
    with pytest.raises(AssertionError, match="not-there"):
        build_wheel(tmp_path, "not-there", TDCOMPRESS_WHEEL="musllinux_1_2_x86_64")


@pytest.mark.parametrize(
    ("tag", "machine", "system", "glibc"),
    [
        ("manylinux_2_17_x86_64.manylinux2014_x86_64", "x86_64", "linux", True),
        ("musllinux_1_2_aarch64", "aarch64", "linux", False),
        ("macosx_11_0_arm64", "aarch64", "darwin", False),
    ],
)
def test_the_platform_of_a_tag(tag, machine, system, glibc):
    assert build.tagged_platform(tag) == build.Platform(machine=machine, system=system, glibc=glibc)


def test_a_tag_without_a_library():
    with pytest.raises(UserError, match="win_amd64"):
        build.tagged_platform("win_amd64")


def test_the_instruction_sets_are_those_of_the_processor(monkeypatch):
    processor = read_processor()
    if not (processor.is_x86 and processor.flags):
        pytest.skip("the flags of this processor are not told")
    monkeypatch.delenv("TDCOMPRESS_ENGINE_ISA", raising=False)
    found = [isa.name for isa in Library().instruction_sets]
    avx2 = {"avx2", "fma"} <= set(processor.flags)
    avx512 = avx2 and {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= set(processor.flags)
    assert found == ["avx512"] * avx512 + ["avx2"] * avx2 + ["scalar"]
