"""Which kernel runs a layer: a count of the work that each would do, in the measured cost of its inner loop.

The sparse kernel pays per kept weight, the dense one per weight; per multiplication the dense kernel is cheaper
because several filters share each loaded row. docs/engine.md has the measurements behind the constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class ConvCost:
    """What a multiplication of the sparse kernel costs, in multiplications of the dense one.

    Attributes:
        least: where a block fills the kernel's registers and its input rows stay in the first-level cache.
        scattered: factor where they do not stay: filters of scattered weights read them in an order that nothing foresees.
        narrow: factor where the whole plane has fewer vectors than a block: they share each entry that is read from the table.
        near_bytes: most bytes of a block's input rows that stay, beside the table and the output.
    """

    least: float
    scattered: float = 1.0
    narrow: float = 1.0
    near_bytes: int = 0


CONV_COST: Mapping[str, ConvCost] = MappingProxyType(
    {"avx2": ConvCost(least=1.1, scattered=1.4, narrow=1.4, near_bytes=28 << 10)}  # of 32 KB on Zen and most Intel processors
)
"""By instruction set, where it was measured by shape."""
CONV_COST_ELSEWHERE = ConvCost(least=1.5)
ROWS_DENSE_ADVANTAGE = 8.0
"""The same for fully connected layers stored by rows: one number at a time against whole vectors."""
LANES_DENSE_ADVANTAGE = 2.5
"""The same for fully connected layers with 16 outputs in the lanes, lanes that wait for the fullest included."""
LANES_LARGEST = 1 << 18
"""Most kept weights of the lanes kernel: its table takes twice the bytes per weight, which pays only in the cache."""
FILTER_OVERHEAD = 2.0
"""What finishing one filter costs in the sparse kernel, in kept weights."""


@dataclass(frozen=True, kw_only=True)
class ConvBlock:
    """What the sparse kernel holds of a convolution at a time.

    Attributes:
        vectors: of the output plane, at most ``most``.
        most: vectors that a block can have.
        row_bytes: of the input rows that a filter's weights may read for one block.
    """

    vectors: int
    most: int
    row_bytes: int


@dataclass(frozen=True, kw_only=True)
class KernelChoice:
    """A kernel ("dense"; "sparse" for convolutions, "rows" or "lanes" for fully connected layers) and the reason, for people."""

    kernel: str
    why: str


def conv_cost(isa: str, block: ConvBlock) -> float:
    """What a multiplication of the sparse kernel costs with these blocks, in multiplications of the dense one."""
    cost = CONV_COST.get(isa, CONV_COST_ELSEWHERE)
    scattered = cost.scattered if block.row_bytes > cost.near_bytes else 1.0
    return cost.least * scattered * (cost.narrow if block.vectors < block.most else 1.0)


def choose_conv(*, weights: int, zeros: int, filters: int, groups: int, filter_block: int, cost: float) -> KernelChoice:
    """The kernel of a convolution: sparse where its kept weights cost less than all of them in the dense kernel.

    Args:
        weights: entries of its weight, filters * fan_in.
        zeros: how many of them are zero.
        filters: output channels, of all groups together.
        groups: of the convolution; divides ``filters``.
        filter_block: filters that the dense kernel works on at a time; those of a group are filled up to a multiple of it.
        cost: of a sparse multiplication, in dense ones: see ``conv_cost``.
    """
    kept = weights - zeros
    per_group = filters // groups
    padded = -(-per_group // filter_block) * filter_block
    sparse = (kept + FILTER_OVERHEAD * filters) * cost
    dense = weights * padded / per_group
    return _choice(sparse, dense, zeros, weights)


def choose_linear(*, weights: int, zeros: int, outputs: int, lanes: bool) -> KernelChoice:
    """The kernel of a fully connected layer: a sparse one where its kept weights cost less than all in the dense kernel.

    Args:
        weights: entries of the matrix, outputs * inputs.
        zeros: how many of them are zero.
        outputs: its rows.
        lanes: whether the machine has the lanes kernel.
    """
    kept = weights - zeros
    use_lanes = lanes and kept <= LANES_LARGEST
    cost = (kept + outputs) * (LANES_DENSE_ADVANTAGE if use_lanes else ROWS_DENSE_ADVANTAGE)
    return _choice(cost, weights, zeros, weights, sparse_kernel="lanes" if use_lanes else "rows")


def _choice(sparse: float, dense: float, zeros: int, weights: int, sparse_kernel: str = "sparse") -> KernelChoice:
    share = f"{100 * zeros / weights:.1f} % zeros"
    if sparse < dense:
        return KernelChoice(
            kernel=sparse_kernel, why=f"{share}: the kept weights alone cost {sparse / dense:.2f} of the dense kernel"
        )
    return KernelChoice(kernel="dense", why=f"{share}: skipping zeros would cost {sparse / dense:.2f} of the dense kernel")
