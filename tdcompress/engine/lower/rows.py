"""Steps that read rows where a table or a computed number says, to kernel calls."""

from __future__ import annotations

import math

from tdcompress.engine.binding import LookupOp, ResampleOp
from tdcompress.engine.lower.state import Lowering
from tdcompress.engine.steps import Lookup, Resample


def lower_resample(state: Lowering, step: Resample) -> None:
    """One axis at other places, each a weighted sum of old ones."""
    x, y, shape = state.plain(step.x), state.output_plain(step.output), state.shape(step.x)
    indices, weights = state.pointer(step.indices), state.pointer(step.weights)
    state.call(
        "resample",
        [x],
        [y],
        lambda: ResampleOp(
            input=x.tensor(),
            output=y.tensor(),
            outer=math.prod(shape[: step.axis]),
            size_in=shape[step.axis],
            size_out=len(step.indices),
            inner=math.prod(shape[step.axis + 1 :]),
            taps=1 if step.weights is None else step.weights.shape[1],
            indices=indices,
            weights=weights,
        ),
    )


def lower_lookup(state: Lowering, step: Lookup) -> None:
    """Rows of a constant table by computed numbers."""
    x, y = state.plain(step.x), state.output_plain(step.output)
    table, (rows, width) = state.once(step.table, "rows", lambda pool: pool.array(step.table)), step.table.shape
    state.call(
        "lookup",
        [x],
        [y],
        lambda: LookupOp(
            input=x.tensor(), output=y.tensor(), count=math.prod(state.shape(step.x)), rows=rows, width=width, table=table
        ),
    )
