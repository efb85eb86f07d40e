"""What a method drops in a step, for whole vectors: single weights, units, or nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tdcompress.methods.base import Method
from tdcompress.methods.targeted import TargetedUnits, TargetedWeights
from tdcompress.sparsity.masks import lay_along
from tdcompress.sparsity.scores import protect_largest
from tdcompress.sparsity.shares import Counts, Overall, Shares
from tdcompress.train.fast.layout import VectorLayout
from tdcompress.train.fast.select import PortableSelection, Ranked, Selection, ranks


class Dropping(Protocol):
    """A method as the fast path runs it.

    Attributes:
        draws: uniform numbers that a step needs.
    """

    draws: int

    def counts(self, epoch: float) -> Sequence[int]:
        """How many are candidates at a moment of training; the meaning of each number is the class's own."""

    def __call__(self, vector_P: Tensor, uniform: Tensor, counts_C: Tensor, alpha: Tensor) -> Tensor:
        """Bool over the first entries of the vector: True = dropped in this step."""


RANKED: Mapping[Shares, Ranked] = {"filter": "filter", "layer": "layer", "erk": "layer", "global": "network"}


def _numbers(counts: Counts, names: Sequence[str]) -> list[int]:
    """The counts as a row of a table, in the order of these names."""
    return [counts.count] if isinstance(counts, Overall) else [counts.counts[name] for name in names]


class NoDropping:
    """The method "none"."""

    draws = 0

    def counts(self, epoch: float) -> Sequence[int]:  # noqa: D102
        return ()

    def __call__(self, vector_P: Tensor, uniform: Tensor, counts_C: Tensor, alpha: Tensor) -> Tensor:  # noqa: D102
        return torch.zeros(0, dtype=torch.bool, device=vector_P.device)


class WeightDropping:
    """Targeted dropout of weights.

    Args:
        layout: of the vector.
        method: gives the candidates' numbers.
        device: of the vector.
    """

    def __init__(self, layout: VectorLayout, method: TargetedWeights, device: torch.device) -> None:
        self._method = method
        self.draws = layout.prunable_size
        ranked = RANKED[method.settings.split]
        self._named = layout.first_of_runs if ranked == "filter" else tuple(piece.name for piece in layout.matrices)
        self._select = make_selection(layout, ranked, device)

    def counts(self, epoch: float) -> Sequence[int]:  # noqa: D102
        return _numbers(self._method.counts(epoch), self._named)

    def __call__(self, vector_P: Tensor, uniform: Tensor, counts_C: Tensor, alpha: Tensor) -> Tensor:  # noqa: D102
        return self._select(vector_P, uniform, counts_C, alpha)


def make_selection(layout: VectorLayout, ranked: Ranked, device: torch.device) -> Selection:
    """The kernels on a GPU where Triton is there, torch's operators elsewhere.

    Args:
        layout: where parameters lie.
        ranked: what is ranked.
        device: of the network.
    """
    if device.type == "cuda" and has_triton():
        from tdcompress.train.fast.kernels import TritonSelection

        return TritonSelection(layout, ranked, device)
    return PortableSelection(layout, ranked)


def has_triton() -> bool:
    """Whether Triton can be imported; it comes with torch's CUDA builds."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


class UnitDropping:
    """Targeted dropout of units: Equation 1's norms, a padded table of groups, one stable sort.

    Args:
        layout: of the vector.
        method: gives groups, gamma, and what is drawn for.
        device: of the vector.

    Raises:
        ValueError: an entry that belongs to two units.
    """

    def __init__(self, layout: VectorLayout, method: TargetedUnits, device: torch.device) -> None:
        self._layout, self._method = layout, method
        groups = method.targets.groups
        self._sizes = [group.size for group in groups]
        units = sum(self._sizes)
        owner_P, row_owners = _owners(layout, method)
        self._owner_P = owner_P.to(device)
        self._rows = [(rows.to(device), owners.to(device)) for rows, owners in row_owners]
        self._together = method.settings.split == "global"
        self._per_entry = method.settings.draw == "weight"
        self.draws = layout.size if self._per_entry else units
        width = max(self._sizes)
        column = torch.arange(width)
        padded = torch.stack([torch.where(column < size, column, -1) for size in self._sizes])
        firsts = torch.tensor([0, *self._sizes[:-1]]).cumsum(0)
        self._unit_GW = torch.where(padded < 0, units, padded + firsts[:, None]).to(device)  # `units` stands for no unit
        self._of_unit = (padded >= 0).flatten().nonzero().flatten().to(device)

    def counts(self, epoch: float) -> Sequence[int]:  # noqa: D102
        return _numbers(self._method.counts(epoch), [group.name for group in self._method.targets.groups])

    def __call__(self, vector_P: Tensor, uniform: Tensor, counts_C: Tensor, alpha: Tensor) -> Tensor:  # noqa: D102
        candidate_U = self._candidates(self.scores(vector_P), counts_C)
        if not self._per_entry:
            candidate_U = candidate_U & (uniform < alpha)
        dropped_P = torch.cat([candidate_U, candidate_U.new_zeros(1)]).index_select(0, self._owner_P)
        return dropped_P & (uniform < alpha) if self._per_entry else dropped_P

    def _candidates(self, scores_U: Tensor, counts_C: Tensor) -> Tensor:
        """The lowest units of every group, or of all groups together with the last of each protected."""
        if self._together:
            protected_GW = protect_largest(self._padded(scores_U, -torch.inf))
            return ranks(protected_GW.flatten().index_select(0, self._of_unit)) < counts_C[0]
        chosen_GW = ranks(self._padded(scores_U, torch.inf)) < counts_C[:, None]
        return chosen_GW.flatten().index_select(0, self._of_unit)

    def _padded(self, scores_U: Tensor, value: float) -> Tensor:
        """The scores as a table with a row for each group."""
        return torch.cat([scores_U, scores_U.new_full((1,), value)])[self._unit_GW]

    def scores(self, vector_P: Tensor) -> Tensor:
        """The L2 norm of each unit over all its filters, (U,), all groups one after another."""
        squares_R = torch.cat([run.logical(vector_P).square().sum(1) for run in self._layout.runs])
        squares_U = squares_R.new_zeros(sum(self._sizes))
        for rows, owners in self._rows:
            squares_U = squares_U.index_add(0, owners, squares_R.index_select(0, rows))
        return squares_U.sqrt()


def _owners(layout: VectorLayout, method: TargetedUnits) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Each entry's unit (int64 (P,), the number of units = none), and the (rows, units) that are ranked.

    The rows come in lists, the first filter of every group, the second, ..., so that norms are added up in the reference's order.
    """
    by_name = {piece.name: piece for piece in layout.pieces}
    first_row, rows_before = {}, 0
    for piece in layout.matrices:
        first_row[piece.name], rows_before = rows_before, rows_before + piece.rows
    none = sum(group.size for group in method.targets.groups)
    owner_P = torch.full((layout.size,), none)
    ranked: list[tuple[list[int], list[int]]] = []
    first = 0
    for group in method.targets.groups:
        numbers = torch.arange(first, first + group.size)
        for slot in (*group.filters, *group.tied):
            piece = by_name[slot.parameter]
            entries = piece.flattened(lay_along(numbers, slot, piece.shape, absent=none).expand(piece.shape))
            part = owner_P[piece.start : piece.stop]
            if bool(((part != none) & (entries != none)).any()):
                raise ValueError(f"entries of {slot.parameter} belong to two units")
            part.copy_(torch.where(entries != none, entries, part))
        for index, slot in enumerate(group.filters):
            units, indices = slot.owners(group.size)
            if index == len(ranked):
                ranked.append(([], []))
            ranked[index][0].extend(first_row[slot.parameter] + row for row in indices)
            ranked[index][1].extend(first + unit for unit in units)
        first += group.size
    return owner_P, [(torch.tensor(rows), torch.tensor(owners)) for rows, owners in ranked]


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """Why the fast path cannot run something.

    Attributes:
        reason: for people.
    """

    reason: str


def dropping_of(method: Method, layout: VectorLayout, device: torch.device) -> Dropping | Unsupported:
    """The method's fast form.

    Args:
        method: of the training.
        layout: where parameters lie.
        device: of the network.
    """
    if type(method) is Method:
        return NoDropping()
    if isinstance(method, TargetedWeights):
        return WeightDropping(layout, method, device)
    if isinstance(method, TargetedUnits):
        try:
            return UnitDropping(layout, method, device)
        except ValueError as error:
            return Unsupported(reason=str(error))
    return Unsupported(reason=f"{type(method).__name__} has no fast form")
