"""How one tensor of one image lies in memory.

There are two families. *Plain* is row-major and contiguous, as in ONNX. *Planes* are what convolutions read and write. Their rows
are padded to whole vectors of 16 lanes, so that every load is aligned. Planes at most 8 wide put several rows into one vector
("segments": vector r holds rows r, r + R, r + 2R, ...). So a step in y is a step of one whole vector there too. Above and below
lie halo rows: zeros, or with segments the neighbouring segment's rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tdcompress.engine.binding import LANES
from tdcompress.engine.steps import Shape


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Sizes in elements; `rows` counts the row slots of one segment; a row slot is pitch * segments elements."""

    channels: int
    height: int
    width: int
    pitch: int
    segments: int = 1
    halo_top: int = 0
    halo_bottom: int = 0
    slots: int = 0

    @property
    def rows(self) -> int:
        """Row slots of a plane, without halos."""
        return self.slots or self.height

    @property
    def row_stride(self) -> int:
        """From one row slot to the next."""
        return self.pitch * self.segments

    @property
    def plane_stride(self) -> int:
        """From one channel to the next. Without segments the zero rows between two planes serve both."""
        halo = max(self.halo_top, self.halo_bottom) if self.segments == 1 else self.halo_top + self.halo_bottom
        lines = (self.rows + halo) * self.row_stride
        # A stride of many cache lines that is a power of two would map all channels to the same few sets of the cache.
        return lines + LANES if not self.plain and lines % (16 * LANES) == 0 else lines

    @property
    def first(self) -> int:
        """From the buffer's start to the first row of channel 0."""
        return self.halo_top * self.row_stride

    @property
    def size(self) -> int:
        """Of the whole buffer."""
        return self.channels * self.plane_stride + self.first + self.halo_bottom * self.row_stride

    @property
    def plain(self) -> bool:
        """Whether it is row-major and contiguous."""
        return (
            self.pitch == self.width
            and self.segments == 1
            and self.halo_top == self.halo_bottom == 0
            and self.rows == self.height
        )

    @property
    def row_vectors(self) -> int:
        """Vectors per row slot."""
        return self.row_stride // LANES

    def same_grid(self, other: Layout) -> bool:
        """Whether vector k of a plane holds the same rows and columns in both."""
        return (
            self.pitch == other.pitch
            and self.segments == other.segments
            and self.row_stride % LANES == 0
            and (self.segments == 1 or self.rows == other.rows)
        )

    def serves(self, wanted: Layout) -> bool:
        """Whether a reader that wants `wanted` can read this."""
        return self.same_grid(wanted) and self.halo_top >= wanted.halo_top and self.halo_bottom >= wanted.halo_bottom

    def with_halo(self, top: int, bottom: int) -> Layout:
        """The same grid with at least these halos."""
        return replace(self, halo_top=max(self.halo_top, top), halo_bottom=max(self.halo_bottom, bottom))


def plain_layout(shape: Shape) -> Layout:
    """The plain layout of a tensor: first axis as channels, last axis as width, all between as height."""
    if len(shape) < 2:
        return Layout(channels=1, height=1, width=math.prod(shape), pitch=math.prod(shape))
    return Layout(channels=shape[0], height=math.prod(shape[1:-1]), width=shape[-1], pitch=shape[-1])


def planes(shape: Shape, *, grid_height: int, grid_width: int) -> Layout:
    """The planes of a tensor (C, H, W) on the grid of a convolution whose largest plane is grid_height x grid_width.

    Args:
        shape: (C, H, W).
        grid_height: rows of the largest plane.
        grid_width: columns of the largest plane.
    """
    channels, height, width = shape
    pitch = -(-grid_width // LANES) * LANES if grid_width > LANES // 2 else 1 << (grid_width - 1).bit_length()
    segments = max(1, LANES // pitch)
    slots = height if segments == 1 else -(-grid_height // segments)
    return Layout(channels=channels, height=height, width=width, pitch=pitch, segments=segments, slots=slots)
