"""Where the places of a resized axis lie between the old ones, and with what weights (ONNX Resize; onnxruntime's rounding)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tdcompress.engine.steps import Floats

AxisTaps = tuple[NDArray[np.int32], Floats | None]
"""indices (size, taps), or (size,) without weights; weights (size, taps)."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis before and after; scale as the model gives it, in float32, as onnxruntime computes."""

    size: int
    resized: int
    scale: np.float32


def _half_pixel(axis: Axis, i: Floats) -> Floats:
    return (i + np.float32(0.5)) / axis.scale - np.float32(0.5)


def _symmetric(axis: Axis, i: Floats) -> Floats:
    adjusted = np.float32(axis.resized) / (axis.scale * np.float32(axis.size))
    centre = np.float32(axis.size) / np.float32(2)
    return centre * (np.float32(1) - adjusted) + (i + np.float32(0.5)) / axis.scale - np.float32(0.5)


def _align_corners(axis: Axis, i: Floats) -> Floats:
    return i * np.float32(axis.size - 1) / np.float32(axis.resized - 1) if axis.resized > 1 else i * np.float32(0)


COORDINATES: Mapping[str, Callable[[Axis, Floats], Floats]] = MappingProxyType(
    {
        "align_corners": _align_corners,
        "asymmetric": lambda axis, i: i / axis.scale,
        "half_pixel": _half_pixel,
        "half_pixel_symmetric": _symmetric,
        "pytorch_half_pixel": lambda axis, i: _half_pixel(axis, i) if axis.resized > 1 else i * np.float32(0),
        "tf_half_pixel_for_nn": lambda axis, i: (i + np.float32(0.5)) / axis.scale,
    }
)
"""coordinate_transformation_mode -> the old coordinate of a new one."""


def _away_from_zero(x: Floats) -> Floats:
    return np.copysign(np.floor(np.abs(x) + np.float32(0.5)), x)


ROUNDINGS: Mapping[str, Callable[[Floats], Floats]] = MappingProxyType(
    {
        "ceil": np.ceil,
        "floor": np.floor,
        "round_prefer_ceil": _away_from_zero,
        "round_prefer_floor": lambda x: np.where(x == np.floor(x) + np.float32(0.5), np.floor(x), _away_from_zero(x)),
    }
)
"""nearest_mode -> how an old coordinate is rounded."""


def nearest_taps(axis: Axis, coordinates: str, rounding: str) -> AxisTaps:
    """The nearest old place of every new one.

    Args:
        axis: its length before and after.
        coordinates: a key of ``COORDINATES``.
        rounding: a key of ``ROUNDINGS``.
    """
    x = COORDINATES[coordinates](axis, np.arange(axis.resized, dtype=np.float32))
    return np.clip(ROUNDINGS[rounding](x), 0, axis.size - 1).astype(np.int32), None


def linear_taps(axis: Axis, coordinates: str) -> AxisTaps:
    """The two old places beside every new one; beyond the edge, the edge.

    Args:
        axis: its length before and after, n.
        coordinates: a key of ``COORDINATES``.

    Returns:
        int32 (n, 2) places and float32 (n, 2) shares, which add up to 1.
    """
    x = np.clip(COORDINATES[coordinates](axis, np.arange(axis.resized, dtype=np.float32)), 0, axis.size - 1).astype(np.float32)
    before = x.astype(np.int32)
    after = np.minimum(before + 1, axis.size - 1).astype(np.int32)
    share = x - before.astype(np.float32)
    return np.stack([before, after], 1), np.stack([np.float32(1) - share, share], 1).astype(np.float32)


def cubic_taps(axis: Axis, coordinates: str, a: float, *, exclude_outside: bool) -> AxisTaps:
    """Four old places around every new one (Keys 1981, with parameter `a`); those beyond the edge are the edge, or left out.

    Args:
        axis: its length before and after.
        coordinates: a key of ``COORDINATES``.
        a: the parameter of the kernel.
        exclude_outside: leave out places beyond the edge, and scale the rest to sum 1.
    """
    x = COORDINATES[coordinates](axis, np.arange(axis.resized, dtype=np.float32)).astype(np.float64)
    first = np.floor(x)
    share = x - first
    near, far = share, 1 - share
    weights = np.stack(
        [
            ((a * (near + 1) - 5 * a) * (near + 1) + 8 * a) * (near + 1) - 4 * a,
            ((a + 2) * near - (a + 3)) * near * near + 1,
            ((a + 2) * far - (a + 3)) * far * far + 1,
            ((a * (far + 1) - 5 * a) * (far + 1) + 8 * a) * (far + 1) - 4 * a,
        ],
        1,
    )
    places = first[:, None].astype(np.int64) + np.arange(-1, 3)
    if exclude_outside:
        weights = np.where((places < 0) | (places >= axis.size), 0, weights)
        weights /= weights.sum(1, keepdims=True)
    return np.clip(places, 0, axis.size - 1).astype(np.int32), weights.astype(np.float32)
