"""A node's outputs where all its inputs are constants."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from tdcompress.engine.constants.arithmetic import ARITHMETIC
from tdcompress.engine.constants.operands import Evaluator, Operands
from tdcompress.engine.constants.places import PLACES
from tdcompress.engine.constants.shapes import SHAPES
from tdcompress.engine.constants.sources import SOURCES
from tdcompress.engine.read import Array, Node
from tdcompress.errors import ModelError, UnsupportedError, one_line

EVALUATORS: Mapping[str, Evaluator] = MappingProxyType({**ARITHMETIC, **PLACES, **SHAPES, **SOURCES})


def evaluate(node: Node, inputs: Operands, opset: int) -> tuple[Array, ...]:
    """The outputs of a node whose inputs are all constants.

    Args:
        node: the operator.
        inputs: its inputs in order, arrays of any shape; None where one is left out.
        opset: of the model.

    Raises:
        UnsupportedError: the operator is not in EVALUATORS.
        ModelError: the inputs do not fit the operator.
    """
    function = EVALUATORS.get(node.op)
    if function is None:
        raise UnsupportedError(
            f"{node.label} computes a constant, and the engine does not fold {node.op}; fold constants when exporting "
            "the model (onnxruntime's offline optimisation does), or use the onnxruntime backend"
        )
    try:
        with np.errstate(all="ignore"):
            result = function(inputs, node, opset)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, ZeroDivisionError) as error:
        raise ModelError(f"{node.label} cannot be evaluated: {one_line(error)}") from error
    return result if isinstance(result, tuple) else (result,)
