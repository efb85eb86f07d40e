"""The units of dense networks, found once in a process for all that are built alike: finding them traces the network.

A run asks for the same units before it begins, in each training of a sweep, and wherever a trained network is read back.
"""

from collections.abc import Hashable, Sequence
from typing import Protocol

from torch import nn

from tdcompress.lineage.origin import Origin
from tdcompress.shrinking.groups import Scope, Unit, Units, find_units
from tdcompress.sparsity.units import prunable_weights
from tdcompress.tasks.base import LearningTask

AT_MOST = 64
"""So many are kept; the oldest go first."""

_found: dict[Hashable, Units] = {}


class UnitsAsked(Protocol):
    """What units are asked for; the settings of a method and of pruning are such."""

    @property
    def scope(self) -> Scope:
        """What is ranked together: see ``find_units``."""

    @property
    def unit(self) -> Unit:
        """What a unit is made of: see ``find_units``."""

    @property
    def exclude(self) -> Sequence[str]:
        """Names of layers that are left whole."""

    @property
    def include(self) -> Sequence[str]:
        """Names of layers whose units count although none can leave: see ``find_units``."""


def units_of(origin: Origin, asked: UnitsAsked, model: nn.Module, task: LearningTask) -> Units:
    """The units of a dense network, whatever the values of its weights are.

    Args:
        origin: what it was built from.
        asked: which units.
        model: the network, with any weights, on the CPU.
        task: gives example inputs.

    Raises:
        ModelError: a name in ``exclude`` that is no layer; or as ``find_units``.
        UnsupportedError: as ``find_units``.
    """
    built = (type(model), type(origin.model.settings), repr(origin.model.settings), repr(task.interface), origin.seed)
    key = (built, asked.scope, asked.unit, tuple(asked.exclude), tuple(asked.include))
    if key not in _found:
        weights = prunable_weights(model, asked.exclude)
        units = find_units(model, task.examples(), weights, scope=asked.scope, unit=asked.unit, include=asked.include)
        while len(_found) >= AT_MOST:
            del _found[next(iter(_found))]
        _found[key] = units
    return _found[key]
