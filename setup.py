"""The part of the build that pyproject.toml cannot say: compile the engine's kernels if a C compiler is there.

Without one, or where it fails, the wheel holds the C source alone and the engine compiles it at first use, as it does for
editable installs. TDCOMPRESS_COMPILE=0 builds such a wheel, which fits every platform, on purpose.

TDCOMPRESS_WHEEL=TAG, such as manylinux_2_17_aarch64, builds a wheel for another platform, with a cross-compiler in $CC. It fails
rather than holding no library. `make wheels` (.ci/wheels.py) does so for each platform.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
WHEEL = os.environ.get("TDCOMPRESS_WHEEL")


def engine_build() -> ModuleType:
    """tdcompress/engine/build.py by itself: the package around it needs numpy, which a build need not have."""
    sys.path.insert(0, str(ROOT))
    spec = importlib.util.spec_from_file_location("tdcompress_engine_build", ROOT / "tdcompress" / "engine" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


def compiler() -> tuple[str, ...] | None:
    """The C compiler to use, None to compile nothing."""
    if os.name != "posix" or os.environ.get("TDCOMPRESS_COMPILE") == "0":
        return None
    return engine_build().find_compiler()


class BuildPy(build_py):
    """Python files, and the compiled kernels beside them."""

    def run(self) -> None:
        """Copy, then compile where that can be done."""
        super().run()
        if self.editable_mode or (command := compiler()) is None:
            return
        build = engine_build()
        from tdcompress.errors import TdcompressError

        target = build.tagged_platform(WHEEL) if WHEEL else build.this_platform()
        try:
            made = build.make_library(command, Path(self.build_lib) / "tdcompress" / "engine" / "compiled", target)
        except TdcompressError as error:
            if WHEEL:
                raise SystemExit(f"tdcompress: {error}") from error
            print(f"tdcompress: the engine's kernels were not compiled, that happens at first use: {error}", file=sys.stderr)
        else:
            print(f"tdcompress: compiled {made.name} with {' '.join(command)}")


class PlatformWheel(bdist_wheel):
    """A wheel with a library fits one platform, and every Python on it."""

    def finalize_options(self) -> None:
        """Say that the wheel is not pure if it may hold a library."""
        super().finalize_options()
        self.root_is_pure = compiler() is None

    def get_tag(self) -> tuple[str, str, str]:
        """As setuptools has it, but for any Python 3."""
        tag = super().get_tag()
        return tag if self.root_is_pure else ("py3", "none", WHEEL or tag[2])


class PlatformDistribution(Distribution):
    """One whose files go where those of a platform go, at the root of the wheel, if they may hold a library."""

    def has_ext_modules(self) -> bool:
        """Whether there is a compiler."""
        return compiler() is not None


setup(cmdclass={"build_py": BuildPy, "bdist_wheel": PlatformWheel}, distclass=PlatformDistribution)
