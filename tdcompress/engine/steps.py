"""The planner's own operations: few, with every default resolved, on tensors of one image (the batch axis is gone).

A network is a list of steps in an order in which it can run, and a shape per tensor name. ONNX operators become steps
in translate/, fuse.py joins steps, lower/ turns them into calls of kernels. Constants of a step are float32
numpy arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Activation:
    """An activation of tdc.h with its two parameters."""

    kind: str = "none"
    a: float = 0.0
    b: float = 0.0

    @property
    def cheap(self) -> bool:
        """Whether the convolution kernels can apply it while they store."""
        return self.kind in ("none", "relu", "clip", "leaky", "hardsigmoid", "hardswish")


NO_ACTIVATION = Activation()


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """name: the ONNX node that messages and tables name; output: the tensor it makes."""

    name: str
    output: str

    @property
    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """The tensors it reads."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The tensors it makes."""
        return (self.output,)


@dataclass(frozen=True, kw_only=True)
class _OneInput(Step):
    x: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.x,)


@dataclass(frozen=True, kw_only=True)
class ConvSource:
    """One convolution's input and weights. weight: (O, I / groups, kernel_y, kernel_x); pads: top, left, bottom, right."""

    x: str
    weight: Floats
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    groups: int


@dataclass(frozen=True, kw_only=True)
class Second:
    """A second output act(scale * y + shift) of a convolution's first output y; scale and shift: (O,)."""

    output: str
    scale: Floats
    shift: Floats
    act: Activation


@dataclass(frozen=True, kw_only=True)
class Conv(Step):
    """y = act(sum of the sources' convolutions + bias + residual); keep_output: someone reads y itself. bias: (O,)."""

    sources: tuple[ConvSource, ...]
    bias: Floats
    act: Activation = NO_ACTIVATION
    residual: str | None = None
    second: Second | None = None
    keep_output: bool = True

    @property
    def inputs(self) -> tuple[str, ...]:
        """The sources' tensors and the residual."""
        return (*(source.x for source in self.sources), *((self.residual,) if self.residual else ()))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The first output if it is kept, and the second if there is one."""
        return (*((self.output,) if self.keep_output else ()), *((self.second.output,) if self.second else ()))


@dataclass(frozen=True, kw_only=True)
class Linear(_OneInput):
    """y[..., n] = act(sum_k x[..., k] weight[n, k] + bias[n]). weight: (N, K); bias: (N,)."""

    weight: Floats
    bias: Floats
    act: Activation = NO_ACTIVATION


@dataclass(frozen=True, kw_only=True)
class Affine(_OneInput):
    """y[c, ...] = act(scale[c] * x[c, ...] + shift[c]), c an image's first axis.

    scale and shift: (C,); None: only the activation.
    """

    scale: Floats | None = None
    shift: Floats | None = None
    act: Activation = NO_ACTIVATION


@dataclass(frozen=True, kw_only=True)
class Binary(Step):
    """y = act(a op b) with numpy's broadcasting; an operand is a tensor's name, or a constant of any shape."""

    kind: str
    a: str | Floats
    b: str | Floats
    act: Activation = NO_ACTIVATION

    @property
    def inputs(self) -> tuple[str, ...]:
        """The operands that are computed."""
        return tuple(operand for operand in (self.a, self.b) if isinstance(operand, str))


@dataclass(frozen=True, kw_only=True)
class Pool(_OneInput):
    """A window over (C, H, W); kind: max, average, average_padded (padding counts)."""

    kind: str
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int] = (1, 1)


@dataclass(frozen=True, kw_only=True)
class Reduce(_OneInput):
    """kind (mean, sum, max, min) over `axes` of an image."""

    kind: str
    axes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Softmax(_OneInput):
    """Softmax, or its logarithm, along one axis of an image."""

    axis: int
    logarithm: bool = False


@dataclass(frozen=True, kw_only=True)
class Permute(_OneInput):
    """y = x with its axes in another order."""

    order: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Take(_OneInput):
    """y = x[slices]; a step may be negative."""

    slices: tuple[slice, ...]


@dataclass(frozen=True, kw_only=True)
class Pad(_OneInput):
    """x with `value` around it; before: elements in front of each axis."""

    before: tuple[int, ...]
    value: float


@dataclass(frozen=True, kw_only=True)
class Concat(Step):
    """The parts, one after another along `axis`."""

    parts: tuple[str, ...]
    axis: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """The parts."""
        return self.parts


@dataclass(frozen=True, kw_only=True)
class Resample(_OneInput):
    """y[.., i, ..] = sum_k weights[i, k] * x[.., indices[i, k], ..] along `axis`; every index is inside it.

    indices and weights: (size, taps). weights None: indices (size,), x is copied as it is.
    """

    axis: int
    indices: NDArray[np.int32]
    weights: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class Lookup(_OneInput):
    """y = table[x]: the rows (V, D) whose numbers are computed; a run ends with an error where one names no row."""

    table: Floats


@dataclass(frozen=True, kw_only=True)
class ConstantTensor(Step):
    """The same numbers for every image, where an operator wants a tensor.

    value: of the shape of one image; source: of what constant, if lengths change it.
    """

    value: Floats
    source: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """None."""
        return ()


@dataclass(frozen=True, kw_only=True)
class View(_OneInput):
    """The same elements in the same order under another shape; also Identity and the cast of an input to float32."""


@dataclass(frozen=True, kw_only=True)
class MatMul(Step):
    """a (..., M, K) times b (..., K, N), both computed from the input."""

    a: str
    b: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Both operands."""
        return (self.a, self.b)


@dataclass(frozen=True, kw_only=True)
class Network:
    """Steps, the shape of every tensor for one image, and the names and element types at the border."""

    steps: tuple[Step, ...]
    shapes: Mapping[str, Shape]
    inputs: Mapping[str, np.dtype[Any]]
    outputs: tuple[str, ...]
