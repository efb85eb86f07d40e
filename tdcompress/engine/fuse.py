"""Joining steps so that each tensor is written once, in its final form.

In this order: arithmetic with per-channel constants becomes Affine; Affine is folded into the convolution or fully
connected layer before it (BatchNorm); activations join their producer; Add joins a convolution as its residual, or joins two
convolutions into one. The normalisation in front of a pre-activation unit becomes a second output of the convolution that makes
its input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tdcompress.engine.steps import NO_ACTIVATION, Affine, Binary, Conv, Floats, Linear, Network, Second, Shape, Step, View

_MOST_SOURCES = 2


def _along_channels(constant: Floats, shape: Shape) -> Floats | None:
    """A constant operand as one number per channel of an image, or None if it is not that."""
    if constant.size == 1:
        return np.full(shape[:1], constant.reshape(())[()], np.float32)
    padded = (1,) * (len(shape) - constant.ndim) + constant.shape
    if constant.ndim <= len(shape) and padded[0] == shape[0] and constant.size == shape[0]:
        return constant.reshape(-1)
    return None


def _as_affine(step: Step, shapes: dict[str, Shape], *, one_length: bool) -> Step:
    """Binary with a per-channel constant as Affine; of one number for all channels only where their count stays."""
    if not isinstance(step, Binary) or step.kind not in ("add", "sub", "mul", "div") or len(step.inputs) != 1:
        return step
    x = step.inputs[0]
    operand = step.b if isinstance(step.a, str) else step.a
    if isinstance(operand, str) or shapes[x] != shapes[step.output] or not shapes[x]:
        return step
    constant = _along_channels(operand, shapes[x])
    if operand.size == 1 and shapes[x][0] != 1 and not one_length:
        return step
    if constant is None or (step.kind == "div" and (not isinstance(step.a, str) or not constant.all())):
        return step
    one, zero = np.ones_like(constant), np.zeros_like(constant)
    reverse = not isinstance(step.a, str)
    with np.errstate(over="ignore", divide="ignore"):
        scale, shift = {
            "add": (one, constant),
            "sub": (-one, constant) if reverse else (one, -constant),
            "mul": (constant, zero),
            "div": (np.float32(1) / constant if constant.all() else one, zero),
        }[step.kind]
    if not np.isfinite(scale).all() or (np.abs(scale[scale != 0]) < _LEAST).any():
        return step  # 1 / constant is too large or too small for float32
    return Affine(name=step.name, output=step.output, x=x, scale=scale, shift=shift, act=step.act)


def _drop_identities(network: Network) -> list[Step]:
    """Views that change nothing are removed by renaming; a graph output keeps its name."""
    renamed: dict[str, str] = {}
    steps: list[Step] = []
    for step in network.steps:
        step = _rename(step, renamed)
        if (
            isinstance(step, View)
            and network.shapes[step.x] == network.shapes[step.output]
            and step.output not in network.outputs
        ):
            renamed[step.output] = step.x
        else:
            steps.append(step)
    return steps


def _rename(step: Step, renamed: dict[str, str]) -> Step:
    if not any(name in renamed for name in step.inputs):
        return step
    changes: dict[str, object] = {}
    for field, value in vars(step).items():
        if field in ("x", "a", "b", "residual") and isinstance(value, str) and value in renamed:
            changes[field] = renamed[value]
        elif field == "parts":
            changes[field] = tuple(renamed.get(name, name) for name in value)
        elif field == "sources":
            changes[field] = tuple(replace(source, x=renamed.get(source.x, source.x)) for source in value)
    return replace(step, **changes)  # type: ignore[arg-type]


_LEAST = np.finfo(np.float32).tiny
"""The smallest number that float32 holds in full precision."""


def _scaled(weight: Floats, scale: Floats) -> Floats | None:
    """Weight (O, ...) times scale (O,), or None if float32 cannot hold that, though it may hold what a run computes with both."""
    product = weight.astype(np.float64) * scale.reshape(-1, *([1] * (weight.ndim - 1)))
    with np.errstate(over="ignore", under="ignore"):
        folded = product.astype(np.float32)
    largest = np.abs(product).reshape(len(product), -1).max(axis=1, initial=0)
    return None if not np.isfinite(folded).all() or ((largest > 0) & (largest < _LEAST)).any() else folded


def _folded(weights: Sequence[Floats], bias: Floats, affine: Affine) -> tuple[list[Floats], Floats] | None:
    """Weights and bias of one step that also does what `affine` does."""
    assert affine.scale is not None
    assert affine.shift is not None
    scaled = [_scaled(weight, affine.scale) for weight in weights]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        shifted = (bias.astype(np.float64) * affine.scale + affine.shift).astype(np.float32)
    kept = [weight for weight in scaled if weight is not None]
    return (kept, shifted) if len(kept) == len(weights) and np.isfinite(shifted).all() else None


def _absorb(first: Step, second: Step, shapes: dict[str, Shape]) -> Step | None:
    """One step that does `first` and then `second`, its only reader; None if there is none."""
    if isinstance(first, Linear) and isinstance(second, Binary):
        return _with_bias(first, second)
    if not isinstance(second, Affine):
        return None
    if (
        isinstance(first, Conv)
        and first.act == NO_ACTIVATION
        and first.second is None
        and (second.scale is None or first.residual is None)
        and second.act.cheap
    ):
        if second.scale is None:
            return replace(first, output=second.output, act=second.act)
        folded = _folded([source.weight for source in first.sources], first.bias, second)
        if folded is None:
            return None
        sources = tuple(replace(source, weight=weight) for source, weight in zip(first.sources, folded[0], strict=True))
        return replace(first, output=second.output, sources=sources, bias=folded[1], act=second.act)
    if isinstance(first, Linear) and first.act == NO_ACTIVATION and second.act.cheap:
        if second.scale is None:
            return replace(first, output=second.output, act=second.act)
        folded = _folded([first.weight], first.bias, second) if len(shapes[first.output]) == 1 else None
        if folded is not None:
            return replace(first, output=second.output, weight=folded[0][0], bias=folded[1], act=second.act)
    if isinstance(first, Affine) and first.act == NO_ACTIVATION and first.scale is not None and first.shift is not None:
        if second.scale is None:
            return replace(first, output=second.output, act=second.act)
        folded = _folded([first.scale], first.shift, second)
        if folded is not None:
            return replace(first, output=second.output, scale=folded[0][0], shift=folded[1], act=second.act)
    if isinstance(first, Binary) and first.act == NO_ACTIVATION and second.scale is None:
        return replace(first, output=second.output, act=second.act)
    return None


def _with_bias(first: Linear, second: Binary) -> Linear | None:
    """A dense layer with a constant of its outputs added; of a layer over one row that is an Affine."""
    constant = second.b if isinstance(second.a, str) else second.a
    if (
        second.kind != "add"
        or isinstance(constant, str)
        or constant.shape[-1:] != first.bias.shape
        or constant.size != first.bias.size
    ):
        return None
    if first.act != NO_ACTIVATION or not second.act.cheap:
        return None
    return replace(first, output=second.output, bias=first.bias + constant.reshape(-1), act=second.act)


class _Fusion:
    """The list of steps while it is rewritten; a removed step is None."""

    def __init__(self, steps: Sequence[Step], shapes: dict[str, Shape], outputs: tuple[str, ...]) -> None:
        self.steps: list[Step | None] = [None] * len(steps)
        self.shapes = shapes
        self.kept = frozenset(outputs)
        self.readers: dict[str, set[int]] = {}
        self.producers: dict[str, int] = {}
        for index, step in enumerate(steps):
            self.put(index, step)

    def put(self, index: int, step: Step | None) -> None:
        """Replace a step, or remove it, and what is known of its tensors."""
        before = self.steps[index]
        if before is not None:
            for name in before.inputs:
                self.readers[name].discard(index)
            for name in before.outputs:
                if self.producers.get(name) == index:
                    del self.producers[name]
        self.steps[index] = step
        if step is not None:
            for name in step.inputs:
                self.readers.setdefault(name, set()).add(index)
            self.producers.update(dict.fromkeys(step.outputs, index))

    def until_stable(self, rewrite: Callable[[int], bool]) -> None:
        """Apply `rewrite` to every step, again and again until nothing changes."""
        changed = True
        while changed:
            changed = False
            for index in range(len(self.steps)):
                if self.steps[index] is not None and rewrite(index):
                    changed = True

    def only_reader(self, name: str) -> int | None:
        found = self.readers.get(name, ())
        return next(iter(found)) if len(found) == 1 and name not in self.kept else None

    def absorb(self, index: int) -> bool:
        """Fold Affine into its producer."""
        step = self.steps[index]
        assert step is not None
        reader = self.only_reader(step.output)
        follower = None if reader is None else self.steps[reader]
        if reader is None or follower is None:
            return False
        joined = _absorb(step, follower, self.shapes)
        if joined is None:
            return False
        self.put(index, None)
        self.put(reader, joined)
        return True

    def add_residual(self, index: int) -> bool:
        """Conv + other: a residual, or both convolutions in one."""
        conv = self.steps[index]
        if not isinstance(conv, Conv) or conv.act != NO_ACTIVATION or conv.residual is not None:
            return False
        reader = self.only_reader(conv.output)
        add = None if reader is None else self.steps[reader]
        if (
            reader is None
            or not isinstance(add, Binary)
            or add.kind != "add"
            or len(add.inputs) != 2
            or add.a == add.b
            or not add.act.cheap
        ):
            return False
        other = add.inputs[1] if add.a == conv.output else add.inputs[0]
        if self.shapes[other] != self.shapes[conv.output]:
            return False
        producer = self.producers.get(other)
        second = None if producer is None else self.steps[producer]
        joinable = (
            isinstance(second, Conv)
            and second.act == NO_ACTIVATION
            and second.residual is None
            and self.only_reader(other) == reader
        )
        self.put(index, None)
        if (
            joinable
            and isinstance(second, Conv)
            and producer is not None
            and len(conv.sources) + len(second.sources) <= _MOST_SOURCES
            and _ungrouped(conv, second)
        ):
            self.put(producer, None)
            # The larger convolution names the step: it is the main branch.
            main = max(conv, second, key=lambda c: sum(source.weight.size for source in c.sources))
            side = second if main is conv else conv
            sources = (*main.sources, *side.sources)
            self.put(reader, replace(main, output=add.output, sources=sources, bias=main.bias + side.bias, act=add.act))
        else:
            self.put(reader, replace(conv, output=add.output, residual=other, act=add.act))
        return True

    def second_output(self, index: int) -> bool:
        """An affine activation of a convolution's output that others read too, as its second output."""
        conv = self.steps[index]
        if not isinstance(conv, Conv) or conv.second is not None:
            return False
        readers = sorted(self.readers.get(conv.output, ()))
        for reader in readers:
            step = self.steps[reader]
            if isinstance(step, Affine) and step.scale is not None and step.shift is not None and step.act.cheap:
                alone = len(readers) == 1 and conv.output not in self.kept
                second = Second(output=step.output, scale=step.scale, shift=step.shift, act=step.act)
                self.put(reader, None)
                self.put(index, replace(conv, second=second, keep_output=not alone))
                return True
        return False


def _ungrouped(*convs: Conv) -> bool:
    return all(source.groups == 1 for conv in convs for source in conv.sources)


def _without_dead(steps: list[Step], outputs: tuple[str, ...]) -> tuple[Step, ...]:
    """Steps whose results reach an output."""
    needed = Counter(outputs)
    kept: list[Step] = []
    for step in reversed(steps):
        if any(needed[name] for name in step.outputs):
            kept.append(step)
            needed.update(step.inputs)
    return tuple(reversed(kept))


def fuse(network: Network, *, one_length: bool = True) -> Network:
    """The same network in fewer steps.

    Args:
        network: as it was translated.
        one_length: nothing has to hold for other lengths than its shapes have.
    """
    shapes = dict(network.shapes)
    steps = _without_dead(
        [_as_affine(step, shapes, one_length=one_length) for step in _drop_identities(network)], network.outputs
    )
    fusion = _Fusion(steps, shapes, network.outputs)
    fusion.until_stable(fusion.absorb)
    fusion.until_stable(fusion.add_residual)
    fusion.until_stable(fusion.absorb)
    fusion.until_stable(fusion.second_output)
    return replace(network, steps=tuple(step for step in fusion.steps if step is not None))
