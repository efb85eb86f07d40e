"""Compile the kernels once per machine and load them.

The C source is part of the package. A wheel that was built where there is a compiler holds the compiled library (setup.py). Else
it is compiled at first use, into `$TDCOMPRESS_CACHE` or the user's cache folder. The compiler is `$CC`, or else cc, gcc or clang,
or else the `ziglang` wheel. A library's name is a hash of its source, flags and platform, and of its own bytes: a damaged one is
not loaded, but made anew. The compiler is not in the name, so that a library is found after its compiler has gone. Publishing is
atomic: whoever compiles at the same time ends with a whole file. `$TDCOMPRESS_ENGINE_LIBRARY` names a library that is loaded as
it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from tdcompress.errors import TdcompressError, UnsupportedError, UserError
from tdcompress.files import cache_folder, fsync_file, sha256_file

SOURCE = Path(__file__).parent / "csrc"
PACKAGED = Path(__file__).parent / "compiled"
"""Where a wheel holds the library, if it was built where a compiler is."""
KERNEL_FILES = ("conv_sparse.c", "conv_dense.c", "linear.c", "planes.c", "map.c", "pool.c", "reduce.c", "resample.c", "isa.c")
CORE_FILES = (
    *("run.c", "load.c", "check.c", "check_layers.c", "model.c"),
    *("provider.c", "provider_node.c", "provider_run.c"),
)
"""Compiled once, not per instruction set."""
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=fast", "-pthread")
LIBRARY_NAME = "libtdcompress.dylib" if sys.platform == "darwin" else "libtdcompress.so"
"""What programs that are linked with a copy of the library look for."""
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

CHOSEN_LIBRARY = "TDCOMPRESS_ENGINE_LIBRARY"
"""The environment variable that names a library, which is loaded as it is."""

_FAMILIES: Mapping[str, str] = MappingProxyType({"amd64": "x86_64", "arm64": "aarch64"})
_COMPILE_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What a library is for: a processor family as in INSTRUCTION_SETS, ``sys.platform``, and whether its C library is glibc."""

    machine: str
    system: str
    glibc: bool

    @property
    def link_flags(self) -> tuple[str, ...]:
        """How a library gets the name by which programs that are linked with it look for it."""
        if self.system == "darwin":
            return ("-shared", "-Wl,-install_name,@rpath/libtdcompress.dylib")
        return ("-shared", "-Wl,-soname,libtdcompress.so")


def this_platform() -> Platform:
    """Of this Python."""
    return Platform(machine=machine_name(), system=sys.platform, glibc=platform.libc_ver()[0] == "glibc")


def tagged_platform(tag: str) -> Platform:
    """The platform of a wheel's tag, such as "manylinux_2_17_aarch64"; of several, joined by dots, that of the first.

    Raises:
        UserError: a tag of a platform for which there is no library.
    """
    found = re.fullmatch(r"(manylinux|musllinux|macosx)_\d+_\d+_(x86_64|aarch64|arm64)", tag.partition(".")[0])
    if found is None:
        raise UserError(f"{tag!r}: there is no library for such a platform")
    system = "darwin" if found[1] == "macosx" else "linux"
    return Platform(machine=_FAMILIES.get(found[2], found[2]), system=system, glibc=found[1] == "manylinux")


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


def machine_name() -> str:
    """The processor family as INSTRUCTION_SETS names it."""
    name = platform.machine().lower()
    return _FAMILIES.get(name, name)


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=_COMPILE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnsupportedError(
            f"engine: the compiler {command[0]!r} cannot be run ({error}); set CC to a working C compiler"
        ) from error
    if done.returncode != 0:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        first = next((line for line in said if "error" in line), said[-1] if said else f"it ended with {done.returncode}")
        raise UnsupportedError(
            f"engine: {' '.join(command[:3])} failed: {first[:300]}; set CC to another C compiler (gcc 9, clang 11 or newer)"
        )
    made = Path(command[-1])
    if not made.is_file():
        raise UnsupportedError(f"engine: {command[0]!r} made nothing ({made.name} is missing); set CC to a C compiler")


def _compile(compiler: Sequence[str], folder: Path, target: Platform, extra: Sequence[str]) -> Path:
    """The library, made in an empty folder."""
    sets = INSTRUCTION_SETS.get(target.machine, {"scalar": ()})
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
    jobs.extend((*compiler, *FLAGS, *extra, "-c", str(SOURCE / file), "-o", str(folder / f"{file}.o")) for file in CORE_FILES)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, jobs))
    library = folder / "library"
    _run(
        (
            *compiler,
            *extra,
            *target.link_flags,
            "-pthread",
            *sorted(str(path) for path in folder.glob("*.o")),
            "-lm",
            "-o",
            str(library),
        )
    )
    fsync_file(library)
    return library


def _publish(compiler: Sequence[str], folder: Path, name: Callable[[Path], str], target: Platform, extra: Sequence[str]) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as temporary:
            library = _compile(compiler, Path(temporary), target, extra)
            return library.replace(folder / name(library))
    except OSError as error:
        raise TdcompressError(
            f"engine: cannot write {folder}: {error.strerror}; set TDCOMPRESS_CACHE to a folder that can be written"
        ) from error


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
    _publish(compiler, output.parent, lambda library: output.name, replace(this_platform(), machine=machine), extra)


def _stem(target: Platform) -> str:
    """How the names of libraries start that fit this source and a platform."""
    digest = hashlib.sha256()
    for path in sorted(SOURCE.iterdir()):
        if path.suffix in (".c", ".h"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    sets = sorted(INSTRUCTION_SETS.get(target.machine, {}).items())
    digest.update(repr((FLAGS, target.link_flags, sets, target.system, target.glibc)).encode())
    return f"engine-{target.machine}-{digest.hexdigest()[:16]}"


def _fingerprint(path: Path) -> str:
    return sha256_file(path)[:16]


def find_library(folder: Path, target: Platform) -> Path | None:
    """A library in a folder that was made of this source for a platform, and is whole."""
    stem = _stem(target)
    for path in sorted(folder.glob(f"{stem}-*.so")):
        with contextlib.suppress(OSError):
            if path.name == f"{stem}-{_fingerprint(path)}.so":
                return path
    return None


def make_library(compiler: Sequence[str], folder: Path, target: Platform) -> Path:
    """Compile a library into a folder, under the name by which `find_library` knows it.

    Args:
        compiler: its command and options.
        folder: where the library goes.
        target: what it is for.

    Raises:
        UnsupportedError, TdcompressError: as `build`.
    """
    stem = _stem(target)
    return _publish(compiler, folder, lambda library: f"{stem}-{_fingerprint(library)}.so", target, ())


def library_path() -> Path:
    """The compiled library: the package's, the cache's, or compiled now (some seconds, once; a line on stderr says so).

    Raises:
        UnsupportedError: there is no C compiler, or this platform is not handled.
    """
    if override := os.environ.get(CHOSEN_LIBRARY):
        return Path(override)
    if os.name != "posix":
        raise UnsupportedError(f"engine: {platform.system()} is not handled; use the onnxruntime backend")
    target = this_platform()
    if path := find_library(PACKAGED, target) or find_library(cache_folder(), target):
        return path
    compiler = find_compiler()
    if compiler is None:
        raise UnsupportedError(
            "engine: no C compiler; install gcc or clang, or `pip install ziglang`, or use the onnxruntime backend"
        )
    print(
        f"tdcompress: compiling the engine's kernels with {' '.join(compiler)}, once, into {cache_folder()} (up to a minute)",
        file=sys.stderr,
        flush=True,
    )
    return make_library(compiler, cache_folder(), target)


def instead() -> str:
    """What to do about a library that does not work, in words."""
    if os.environ.get(CHOSEN_LIBRARY):
        return f"{CHOSEN_LIBRARY} names it: name another one, or unset it"
    return "delete it and try again"


@functools.cache
def load_library() -> ctypes.CDLL:
    """The engine's library, compiled if need be; ctypes releases the GIL during its calls.

    Raises:
        UnsupportedError: it cannot be built or loaded.
    """
    path = library_path()
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise UnsupportedError(f"engine: {path} cannot be loaded ({error}); {instead()}") from error
