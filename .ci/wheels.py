"""Build a wheel with the compiled engine for each platform, by cross-compiling with zig, and one without for all others.

Usage, from the repository's root: python .ci/wheels.py FOLDER [TAG...]     Needs the ziglang wheel; ZIG="..." names another zig.
TAG is a tag of the table below, or "any"; of several that are joined by a dot, one is enough: manylinux_2_17_x86_64.
Each wheel is opened again: its name has the tag, and the library in it is the one that the package looks for there.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tdcompress.engine.build import find_library, tagged_platform  # noqa: E402

ZIG_TARGETS = {
    "manylinux_2_17_x86_64.manylinux2014_x86_64": "x86_64-linux-gnu.2.17",
    "manylinux_2_17_aarch64.manylinux2014_aarch64": "aarch64-linux-gnu.2.17",
    "musllinux_1_2_x86_64": "x86_64-linux-musl",
    "musllinux_1_2_aarch64": "aarch64-linux-musl",
    "macosx_11_0_x86_64": "x86_64-macos.11.0",
    "macosx_11_0_arm64": "aarch64-macos.11.0",
}
"""Tag of a wheel -> zig's name of the platform."""
PURE = "any"
COPIED = ("tdcompress", "pipelines", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def whole_tag(name: str) -> str:
    """The tag of a wheel, by any of its parts.

    Raises:
        argparse.ArgumentTypeError: no wheel has it.
    """
    for tag in (*ZIG_TARGETS, PURE):
        if name in (tag, *tag.split(".")):
            return tag
    known = ", ".join(tag.partition(".")[0] for tag in (*ZIG_TARGETS, PURE))
    raise argparse.ArgumentTypeError(f"there is no wheel {name!r}; wheels are {known}")


def zig() -> str:
    """The command that cross-compiles."""
    return os.environ.get("ZIG", f"{sys.executable} -m ziglang")


def require_zig() -> None:
    """Fail before the first wheel where there is no zig."""
    try:
        missing = subprocess.run([*shlex.split(zig()), "version"], capture_output=True, check=False).returncode != 0
    except OSError:
        missing = True
    if missing:
        raise SystemExit("wheels.py: no zig; pip install ziglang")


def build_wheel(tag: str, folder: Path) -> Path:
    """One wheel, built in a copy of the source, so that no other build's files are in it."""
    with tempfile.TemporaryDirectory() as temporary:
        source, made = Path(temporary) / "source", Path(temporary) / "made"
        source.mkdir()
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "compiled"))
            else:
                shutil.copy(ROOT / name, source / name)
        environment = dict(os.environ)
        if tag == PURE:
            environment["TDCOMPRESS_COMPILE"] = "0"
        else:
            environment.update(TDCOMPRESS_WHEEL=tag, CC=f"{zig()} cc -target {ZIG_TARGETS[tag]}")
        command = [sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", str(made)]
        done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"wheels.py: {tag}: {done.stderr[-2000:]}")
        (wheel,) = made.iterdir()
        return Path(shutil.copy(wheel, folder / wheel.name))


def check_wheel(tag: str, wheel: Path) -> None:
    """Its name, its record of tags, and its library."""
    expected = f"-py3-none-{tag}.whl"
    if not wheel.name.endswith(expected):
        raise SystemExit(f"wheels.py: {wheel.name} does not end with {expected}")
    with tempfile.TemporaryDirectory() as temporary:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(temporary)
        library = Path(temporary) / "tdcompress" / "engine" / "compiled"
        found = sorted(library.iterdir()) if library.is_dir() else []
        expected_library = [] if tag == PURE else [find_library(library, tagged_platform(tag))]
        if found != expected_library:
            raise SystemExit(f"wheels.py: {wheel.name} holds {[path.name for path in found]}")
    print(f"{wheel.name}: {wheel.stat().st_size:,} bytes")


def main(arguments: list[str]) -> None:
    """All wheels, or those that are named."""
    parser = argparse.ArgumentParser(prog="wheels.py", description="wheels with the compiled engine")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("tags", type=whole_tag, nargs="*", default=[], metavar="TAG", help="which; default: all of them")
    options = parser.parse_args(arguments)
    tags = options.tags or [*ZIG_TARGETS, PURE]
    if tags != [PURE]:
        require_zig()
    options.folder.mkdir(parents=True, exist_ok=True)
    for tag in tags:
        check_wheel(tag, build_wheel(tag, options.folder))


if __name__ == "__main__":
    main(sys.argv[1:])
