"""Which weights one step drops: `tdcompress.sparsity`'s selection for whole vectors, with every number on the device.

`tdcompress.sparsity.select.bottom_k` takes its k from the host and may look at the scores. Here k is a tensor and nothing is read
back, so that a step can be captured. The result is the same, ties included. This is the portable form; `kernels` has the form for
GPUs, and is tested against this one.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from tdcompress.sparsity.scores import protect_largest
from tdcompress.train.fast.layout import Piece, Run, VectorLayout

Ranked = Literal["filter", "layer", "network"]
"""What is ranked together."""


class Selection(Protocol):
    """Draws what a step drops."""

    def __call__(self, vector_P: Tensor, uniform_N: Tensor, counts_C: Tensor, alpha: Tensor) -> Tensor:
        """Select the candidates and drop each with probability alpha.

        Args:
            vector_P: all parameters.
            uniform_N: numbers in [0, 1), one for each prunable entry.
            counts_C: int32, how many are candidates: of each filter, by run (`VectorLayout.runs`); of each layer, by the prunable
                pieces (`VectorLayout.matrices`); or of the whole network, C = 1.
            alpha: the drop rate, a scalar.

        Returns:
            bool (N,): True = dropped.
        """


def ranks(scores: Tensor) -> Tensor:
    """The place of each score in its row's increasing order, ties by index; int64 of the same shape."""
    order = scores.argsort(dim=-1, stable=True)
    places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


class PortableSelection:
    """The selection in torch's own operators: a stable sort for each run, each layer, or the whole network.

    Args:
        layout: of the vector.
        ranked: what is ranked together.
    """

    def __init__(self, layout: VectorLayout, ranked: Ranked) -> None:
        self._layout, self._ranked = layout, ranked

    def __call__(self, vector_P: Tensor, uniform_N: Tensor, counts_C: Tensor, alpha: Tensor) -> Tensor:  # noqa: D102
        scores_N = vector_P[: self._layout.prunable_size].abs()
        chosen_N = {"filter": self._in_filters, "layer": self._in_layers, "network": self._in_network}[self._ranked]
        return chosen_N(scores_N, counts_C) & (uniform_N < alpha)

    def _in_filters(self, scores_N: Tensor, counts_C: Tensor) -> Tensor:
        runs = self._layout.runs
        return torch.cat([run.memory(ranks(run.logical(scores_N)) < count) for run, count in zip(runs, counts_C, strict=True)])

    def _in_layers(self, scores_N: Tensor, counts_C: Tensor) -> Tensor:
        return torch.cat(
            [self._together([piece], scores_N, count)[0] for piece, count in zip(self._layout.matrices, counts_C, strict=True)]
        )

    def _in_network(self, scores_N: Tensor, counts_C: Tensor) -> Tensor:
        by_name = {piece.name: piece for piece in self._layout.matrices}
        pieces = [by_name[name] for name in self._layout.prunable]
        chosen = dict(zip(self._layout.prunable, self._together(pieces, scores_N, counts_C[0]), strict=True))
        return torch.cat([chosen[piece.name] for piece in self._layout.matrices])

    def _together(self, pieces: Sequence[Piece], scores_N: Tensor, count: Tensor) -> list[Tensor]:
        """Rank some matrices as one; returns the chosen entries of each in the vector's order."""
        runs = [Run(start=piece.start, rows=piece.rows, fan_in=piece.fan_in, kernel=piece.kernel) for piece in pieces]
        ranked = torch.cat([protect_largest(run.logical(scores_N)).reshape(-1) for run in runs])
        chosen = torch.split(ranks(ranked) < count, [piece.size for piece in pieces])
        return [run.memory(part) for run, part in zip(runs, chosen, strict=True)]
