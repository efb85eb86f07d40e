"""Is a file right for every length of its free axes? What the trace assumed of them is tried where it is false.

A condition is the network's own where torch refuses every length that breaks it: a kernel larger than the image, an image of odd
height for a U-Net. It is harmless where the file computes there what torch computes, as where PyTorch asks how tensors lie in
memory. In all other cases a file would be wrong without a word. A branch of the forward code itself that torch takes
both ways is one of these even if outputs agree on the samples that are at hand, but for a single length: that is wholly compared.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from tdcompress.errors import UnsupportedError, VerificationError
from tdcompress.export.assumptions import Assumption, FreeLengths, Symbol, breaking, read_assumptions, read_symbols
from tdcompress.export.check import NotRunError, OnnxNetwork, check_agreement
from tdcompress.export.guards import Guard
from tdcompress.export.outputs import named_outputs
from tdcompress.export.sizes import cycled
from tdcompress.functional import evaluating

NUMBERS_AT_MOST = 2**24
"""Of the inputs on which a condition is tried: a batch of 100 images of 224x224."""


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A network and what became of it.

    Attributes:
        model: the network.
        inputs: of the trace, of any shape.
        axes: of each input its free axes, with their names; one name is one length.
        program: of torch.onnx.export.
        guards: the conditions of its trace.
        proto: the file to be.
    """

    model: nn.Module
    inputs: Sequence[Tensor]
    axes: Sequence[Mapping[int, str]]
    program: ExportedProgram
    guards: Sequence[Guard]
    proto: onnx.ModelProto

    @cached_property
    def lengths(self) -> dict[str, int]:
        """Of the trace."""
        return {
            name: item.shape[axis] for item, named in zip(self.inputs, self.axes, strict=True) for axis, name in named.items()
        }

    @cached_property
    def symbols(self) -> dict[str, Symbol]:
        """Of the program."""
        return read_symbols(self.program, self.axes)

    @cached_property
    def network(self) -> OnnxNetwork:
        """The file under onnxruntime."""
        return OnnxNetwork(self.proto, "the file")

    def shapes(self, lengths: FreeLengths) -> list[tuple[int, ...]]:
        """Of the inputs at other lengths."""
        return [
            tuple(lengths[named[axis]] if axis in named else size for axis, size in enumerate(item.shape))
            for item, named in zip(self.inputs, self.axes, strict=True)
        ]

    def at(self, lengths: FreeLengths) -> list[Tensor]:
        """The inputs at other lengths, repeated or cut."""
        found = []
        for item, named in zip(self.inputs, self.axes, strict=True):
            for axis, name in named.items():
                item = cycled(item, axis, lengths[name])
            found.append(item)
        return found

    @cached_property
    def _known(self) -> dict[tuple[int, ...], tuple[str | None, bool]]:
        return {}

    def difference(self, lengths: FreeLengths) -> str | None:
        """How the file differs from torch at other lengths: "" if it does not, None where torch computes no finite numbers."""
        return self._tried(lengths)[0]

    def runs(self, lengths: FreeLengths) -> bool:
        """Whether onnxruntime runs the file at other lengths at which torch computes finite numbers."""
        return self._tried(lengths)[1]

    def _tried(self, lengths: FreeLengths) -> tuple[str | None, bool]:
        key = tuple(lengths[name] for name in self.lengths)
        if key not in self._known:
            self._known[key] = self._try(lengths)
        return self._known[key]

    def _try(self, lengths: FreeLengths) -> tuple[str | None, bool]:
        inputs = self.at(lengths)
        try:
            with torch.inference_mode():
                outputs = named_outputs(self.model(*inputs))
        except Exception:  # user code raises anything
            return None, True
        if not all(bool(output.isfinite().all()) for output in outputs.values()):
            return None, True
        network = self.network
        try:
            check_agreement(self.model, inputs, network, free_axes=())
        except VerificationError as error:
            return str(error), not isinstance(error, NotRunError)
        return "", True


def require_free(traced: Traced) -> None:
    """Refuse a file that holds for some lengths of its free axes alone, though the network takes others.

    Args:
        traced: both; the modes of the network's modules are restored.

    Raises:
        UnsupportedError: the condition, the line that it comes from, and a shape on which the file is wrong.
        VerificationError: onnxruntime does not load the file.
    """
    with evaluating(traced.model):
        assumptions = read_assumptions(traced.program, traced.axes)
        for assumption in assumptions:
            _require_harmless(traced, assumption, assumptions)


def _require_harmless(traced: Traced, assumption: Assumption, assumptions: Sequence[Assumption]) -> None:
    broken = breaking(assumption, assumptions, traced.lengths)
    if assumption.fixes:
        raise UnsupportedError(f"{_right_where(traced, assumption, broken[0])}, so that the axis is not free")
    own = [lengths for lengths in broken if any(guard.own for guard in _broken_guards(traced, lengths))]
    small = [lengths for lengths in broken if _numbers(traced, lengths) <= NUMBERS_AT_MOST]
    if assumption.same and not own:
        _require_no_silent_repeat(traced, assumption)
        small = [lengths for lengths in small if 1 not in (lengths[name] for name in assumption.axes)]
    for lengths in small if own else small[:2]:  # of PyTorch's own conditions there are many
        if found := traced.difference(lengths):
            raise UnsupportedError(f"{_right_where(traced, assumption, lengths)}; {found}")
    for lengths in own:
        if lengths not in small or (len(broken) > 1 and traced.difference(lengths) is not None):
            raise UnsupportedError(f"{_right_where(traced, assumption, lengths)}, not at {_shapes(traced, lengths)}")


def _require_no_silent_repeat(traced: Traced, assumption: Assumption) -> None:
    """Refuse a file that is wrong where PyTorch repeats one axis of length 1 along the other, and that runs there.

    The file has one name for both axes: where it does not run, that name has said so.
    """
    for name in assumption.axes:
        lengths = {**traced.lengths, name: 1}
        if (found := traced.difference(lengths)) and traced.runs(lengths):
            way_out = "let forward refuse such inputs (torch._check that the two sizes are equal)"
            raise UnsupportedError(f"{_right_where(traced, assumption, lengths)}; {found}; {way_out}")


def _right_where(traced: Traced, assumption: Assumption, lengths: FreeLengths) -> str:
    """What a message says of a condition that some lengths break."""
    guards = sorted(_broken_guards(traced, lengths), key=lambda guard: not guard.own)
    line = next((guard.line for guard in guards if guard.line), "")
    return f"the file would be right where {assumption.said} alone{f' ({line})' if line else ''}"


def _broken_guards(traced: Traced, lengths: FreeLengths) -> list[Guard]:
    """The conditions that are false of lengths.

    A size that torch.export bound had a symbol of its own before, which is not in the program: it may be the length that changed,
    or the one that it was.
    """
    changed = next(name for name, length in traced.lengths.items() if lengths[name] != length)
    sizes = {symbol: axis.value(lengths) for symbol, axis in traced.symbols.items()}
    unknown = (lengths[changed], traced.lengths[changed])
    return [guard for guard in traced.guards if any(guard.breaks(sizes, size) for size in unknown)]


def _shapes(traced: Traced, lengths: FreeLengths) -> str:
    return f"shape {', '.join(str(shape) for shape in traced.shapes(lengths))}"


def _numbers(traced: Traced, lengths: FreeLengths) -> int:
    """How many numbers the inputs hold at other lengths."""
    return sum(math.prod(shape) for shape in traced.shapes(lengths))
