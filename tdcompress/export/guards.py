"""Where a forward asks for a size: the line of each condition that torch.export notes while it traces.

PyTorch says it in its log alone. Everything here is for a message: where the log is not as known here, the line is left out.
"""

import contextlib
import logging
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

_LOG = "torch.fx.experimental.symbolic_shapes"
_TORCH = str(Path(torch.__file__).parent)
_SIZES = (f"{_TORCH}/fx/experimental", f"{_TORCH}/__init__.py")
"""Where PyTorch's sizes compare and compute: whoever asked stands behind."""
_TRACER = str(Path(__file__).with_name("to_onnx.py"))
_LIBRARY = sysconfig.get_paths()["stdlib"]


@dataclass(frozen=True, kw_only=True)
class Guard:
    """A condition of a trace.

    Attributes:
        expression: of sympy.
        line: of the network's own code that it is due to: "net.py, line 7: `if x.shape[0] > 8:`"; empty if there is none.
        own: whether that line itself asked, not something of PyTorch that it called.
    """

    expression: Any
    line: str
    own: bool

    def breaks(self, sizes: Mapping[str, int], unknown: int) -> bool:
        """Whether it is false of sizes.

        Args:
            sizes: by the names of their symbols.
            unknown: the size of every other symbol.
        """
        values = {symbol: sizes.get(str(symbol), unknown) for symbol in self.expression.free_symbols}
        with contextlib.suppress(AssertionError, ZeroDivisionError):
            return not bool(self.expression.subs(values))
        return False


@contextmanager
def traced_guards() -> Iterator[list[Guard]]:
    """The conditions of the traces within the block, in order; nothing of PyTorch's log on sizes is printed there."""
    found: list[Guard] = []
    logger = logging.getLogger(_LOG)
    before = (logger.level, logger.propagate, list(logger.handlers), logger.disabled)
    logger.handlers = [_Listener(found)]
    logger.propagate, logger.disabled = False, False
    logger.setLevel(logging.INFO)
    try:
        yield found
    finally:
        logger.setLevel(before[0])
        logger.propagate, logger.handlers, logger.disabled = before[1:]


class _Listener(logging.Handler):
    """Notes a condition together with the calls that led to it."""

    def __init__(self, found: list[Guard]) -> None:
        super().__init__(logging.INFO)
        self.found = found

    def emit(self, record: logging.LogRecord) -> None:
        if "[guard added]" not in str(record.msg):
            return
        frames = [frame for frame, _ in traceback.walk_stack(sys._getframe())]  # the innermost comes first
        names = [frame.f_code.co_name for frame in frames]
        if "_log_guard" not in names:
            return
        noted = frames[names.index("_log_guard")].f_locals.get("g")
        if hasattr(noted, "free_symbols"):
            line, own = _asked(frames[names.index("_log_guard") :])
            self.found.append(Guard(expression=noted, line=line, own=own))


def _asked(frames: Sequence[FrameType]) -> tuple[str, bool]:
    """The network's line that a condition is due to, and whether PyTorch itself did not ask in between."""
    callers = [frame for frame in frames if not frame.f_code.co_filename.startswith(_SIZES)]
    for place, frame in enumerate(callers):
        file = frame.f_code.co_filename
        if file == _TRACER:
            break
        if not file.startswith(_TORCH) and not file.startswith("<") and not _of_python(file):
            (summary,) = traceback.StackSummary.extract(iter([(frame, frame.f_lineno)]))
            code = f": `{summary.line}`" if summary.line else ""
            return f"{Path(file).name}, line {frame.f_lineno}{code}", place == 0
    return "", False


def _of_python(file: str) -> bool:
    return file.startswith(_LIBRARY) and "site-packages" not in file
