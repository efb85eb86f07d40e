"""Which streams cannot lose a unit because the forward code spells their size out: found by taking one unit of each."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from tdcompress.errors import VerificationError
from tdcompress.shrinking.cells import Ids
from tdcompress.shrinking.channels import READ, ChannelGraph
from tdcompress.shrinking.decide import decide
from tdcompress.shrinking.duplicate import duplicate
from tdcompress.shrinking.literals import depends_on_sizes, first_misfit
from tdcompress.shrinking.surgery import cuts, narrowed
from tdcompress.shrinking.trace import ExampleInputs, Program


def spelled_out(
    model: nn.Module,
    example_inputs: ExampleInputs,
    program: Program,
    graph: ChannelGraph,
    units: Sequence[Ids],
    names: Sequence[str],
) -> list[str]:
    """Say of each unit which size written as a number would keep it; "" where none does.

    The narrow network is traced, as shrinking does; where no removed channel meets an operator with sizes, nothing is. A trace
    that fails blames a line of code, which layers of one class share: with GPT-2's ``split`` by a number, whose error rises in a
    Conv1D, also the hidden layers go. So where several kinds of layers are blamed at once, each is tried alone.

    Args:
        model: the network that ``program`` was traced from; not modified.
        example_inputs: of the network.
        program: the network's operators.
        graph: its channels.
        units: channels (n,) that would leave together, one array for each stream.
        names: of each unit a weight that writes it; those that differ in numbers alone are of one kind.
    """
    roots = graph.roots()
    shapes = replace(graph, pins=[], demands=[demand for demand in graph.demands if demand.tier != READ])

    def tried(stuck: list[str]) -> list[str]:
        """The reasons, with those of the units that had none and are blamed."""
        while not all(stuck):
            gone = np.isin(roots, roots[np.concatenate([ids for ids, held in zip(units, stuck, strict=True) if not held])])
            decision = decide(shapes, [(np.flatnonzero(~gone), "not in this trial")])
            if not depends_on_sizes(graph, decision):
                break
            narrow = narrowed(duplicate(model), cuts(graph, decision, program.narrowable), ())
            try:
                misfit = first_misfit(narrow, example_inputs, program, graph, decision, constants=False)
            except VerificationError:  # not for want of a size; shrinking will say what it is
                break
            if misfit is None:
                break
            found, reason = roots[misfit[0]], misfit[1]
            stuck = [held or (reason if np.isin(roots[ids], found).any() else "") for ids, held in zip(units, stuck, strict=True)]
        return stuck

    stuck = tried([""] * len(units))
    kinds = [re.sub(r"\d+", "#", name) for name in names]
    together = {reason: {kind for kind, held in zip(kinds, stuck, strict=True) if held == reason} for reason in stuck if reason}
    for kind in dict.fromkeys(kind for blamed in together.values() if len(blamed) > 1 for kind in sorted(blamed)):
        alone = tried(["" if each == kind and held else held or "not tried" for each, held in zip(kinds, stuck, strict=True)])
        stuck = [new if each == kind and held else held for each, held, new in zip(kinds, stuck, alone, strict=True)]
    return stuck
