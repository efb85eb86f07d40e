"""Compile the kernels once per machine and load them.

The C source is part of the package. At first use it is compiled with cc, gcc or clang, or with the `ziglang` wheel
where no system compiler exists (`$CC` overrides the choice), into `$TDCOMPRESS_CACHE` or the user's cache folder,
under a name that hashes source, compiler and flags. Publishing is atomic: whoever compiles at the same time ends with
the same file. Nothing is compiled at installation.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

from tdcompress.errors import TdcompressError, UnsupportedError

SOURCE = Path(__file__).parent / "csrc"
KERNEL_FILES = ("conv_sparse.c", "conv_dense.c", "linear.c", "planes.c", "map.c", "pool.c", "reduce.c", "isa.c")
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fno-math-errno", "-ffp-contract=fast", "-pthread")
INSTRUCTION_SETS: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "x86_64": {
            "avx512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"),
            "avx2": ("-mavx2", "-mfma"),
            "scalar": (),
        },
        "aarch64": {"neon": ()},
    }
)
"""Per machine: the instruction sets that the library holds, and the compiler's flags for each."""

_COMPILE_SECONDS = 300


def find_compiler() -> tuple[str, ...] | None:
    """The command that compiles C here, or None: `$CC`, cc, gcc, clang, or the ziglang wheel."""
    if chosen := os.environ.get("CC"):
        return tuple(shlex.split(chosen))
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return (path,)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc")
    return None


def cache_folder() -> Path:
    """Where compiled libraries are kept: `$TDCOMPRESS_CACHE`, else the platform's cache folder for the user."""
    if chosen := os.environ.get("TDCOMPRESS_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tdcompress"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tdcompress"


def machine_name() -> str:
    """The processor family as INSTRUCTION_SETS names it."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnsupportedError(
            f"engine: the compiler {command[0]!r} cannot be run ({error}); set CC to a working C compiler"
        ) from error
    if done.returncode != 0:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[-300:])
        raise UnsupportedError(
            f"engine: {' '.join(command[:3])} failed: {first}; set CC to another C compiler (gcc 9, clang 11 or newer)"
        )
    return done.stdout


def build(compiler: Sequence[str], output: Path, *, machine: str, extra: Sequence[str] = ()) -> None:
    """Compile all instruction sets of `machine` into the shared library `output` (written to a temporary name, then renamed).

    Args:
        compiler: the command, e.g. ("gcc",) or ("python", "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu").
        output: the library's path.
        machine: a key of INSTRUCTION_SETS; anything else gets the portable kernels alone.
        extra: more flags for compiling and linking, e.g. sanitizers.

    Raises:
        UnsupportedError: the compiler cannot be run, or fails.
        TdcompressError: the folder cannot be written.
    """
    sets = INSTRUCTION_SETS.get(machine, {"scalar": ()})
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build-") as temporary:
            folder = Path(temporary)
            jobs = [
                (
                    *compiler,
                    *FLAGS,
                    *extra,
                    *flags,
                    f"-DTDC_SUFFIX={name}",
                    "-c",
                    str(SOURCE / file),
                    "-o",
                    str(folder / f"{name}-{file}.o"),
                )
                for name, flags in sets.items()
                for file in KERNEL_FILES
            ]
            jobs.append((*compiler, *FLAGS, *extra, "-c", str(SOURCE / "run.c"), "-o", str(folder / "run.o")))
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(_run, jobs))
            library = folder / "library"
            _run(
                (
                    *compiler,
                    *extra,
                    "-shared",
                    "-pthread",
                    *sorted(str(path) for path in folder.glob("*.o")),
                    "-lm",
                    "-o",
                    str(library),
                )
            )
            with library.open("rb") as file:
                os.fsync(file.fileno())
            library.replace(output)
    except OSError as error:
        raise TdcompressError(
            f"engine: cannot write {output.parent}: {error.strerror}; set TDCOMPRESS_CACHE to a folder that can be written"
        ) from error


def _library_path(compiler: Sequence[str], machine: str) -> Path:
    digest = hashlib.sha256()
    for path in sorted(SOURCE.iterdir()):
        if path.suffix in (".c", ".h"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    executable = Path(compiler[0])
    stamp = executable.resolve().stat() if executable.exists() else None
    version = (stamp.st_size, stamp.st_mtime_ns) if stamp else ()
    digest.update(repr((tuple(compiler), version, FLAGS, sorted(INSTRUCTION_SETS.get(machine, {}).items()))).encode())
    return cache_folder() / f"engine-{machine}-{digest.hexdigest()[:16]}.so"


def library_path() -> Path:
    """The compiled library, compiled now if it is not in the cache yet (a few seconds, once).

    Raises:
        UnsupportedError: there is no C compiler, or this platform is not handled.
    """
    if override := os.environ.get("TDCOMPRESS_ENGINE_LIBRARY"):
        return Path(override)
    if os.name != "posix":
        raise UnsupportedError(f"engine: {platform.system()} is not handled; use the onnxruntime backend")
    compiler = find_compiler()
    if compiler is None:
        raise UnsupportedError(
            "engine: no C compiler; install gcc or clang, or `pip install ziglang`, or use the onnxruntime backend"
        )
    path = _library_path(compiler, machine_name())
    if not path.exists():
        build(compiler, path, machine=machine_name())
    return path


@functools.cache
def load_library() -> ctypes.CDLL:
    """The engine's library, compiled if need be; ctypes releases the GIL during its calls."""
    path = library_path()
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise UnsupportedError(f"engine: {path} cannot be loaded ({error}); delete it and try again") from error
