"""Normalisation: BatchNorm keeps channels apart; LayerNorm and GroupNorm read several together."""

from collections.abc import Mapping

import numpy as np

from tdcompress.shrinking.calls import OperatorCall, Result, Rule, note_numbers, read_together, sees_alone, untracked
from tdcompress.shrinking.cells import MIXED, Cells, Signal, along, blanked, channel_vector, plain
from tdcompress.shrinking.channels import BatchNormAffine, ChannelGraph, Parameter, constant
from tdcompress.shrinking.demands import AllOrNone


def batch_norm(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Y = (x - mean) / sqrt(var + eps) * weight + bias per channel of axis 1, with the stored statistics."""
    x = graph.signal(call["input"])
    if call["running_mean"] is None or call["running_var"] is None:
        return _self_normalised(graph, call, x)
    ndim = len(x.shape)
    cells = x.cells
    rows: dict[str, Cells] = {}
    for key in ("weight", "bias", "running_mean", "running_var"):
        if call[key] is not None:
            row = along(graph.signal(call[key]).cells, 1, ndim)
            graph.unify(cells["channel"], row["channel"], f"{call.layer} normalises a tensor of fixed size")
            rows[key] = row
    shape = np.broadcast_shapes(cells.shape, rows["running_mean"].shape)
    cells = np.broadcast_to(cells, shape).copy()
    if not all(row["known"].all() for row in rows.values()):  # computed from the input, or by an operator without a rule
        return Signal(shape=x.shape, cells=blanked(cells, value=True))
    scale = 1 / np.sqrt(rows["running_var"]["value"] + call["eps"])
    weight = rows["weight"]["value"] if "weight" in rows else np.ones(())
    bias = rows["bias"]["value"] if "bias" in rows else np.zeros(())
    value = (cells["value"] - rows["running_mean"]["value"]) * scale * weight + bias
    known = cells["known"] | np.broadcast_to(weight == 0, shape)
    _remember(graph, call, cells)
    if sees_alone(call.node):
        ignored = np.broadcast_to(weight == 0, shape)
        graph.unread.append(np.setdiff1d(cells["unit"][ignored], [MIXED, *cells["unit"][~ignored]]))
    return Signal(shape=x.shape, cells=constant(cells, np.where(cells["known"], value, bias), known))


def batch_norm_functional(graph: ChannelGraph, call: OperatorCall) -> Result:
    """The functional form, which returns the (empty) batch statistics too."""
    result = batch_norm(graph, call)
    assert isinstance(result, Signal)
    return (result, *(plain(value.shape) for value in call.node.meta["val"][1:]))


def instance_norm(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Each channel of each sample is normalised with its own statistics, so channels stay apart; a constant becomes the bias."""
    x = graph.signal(call["input"])
    if not call["use_input_stats"]:
        return batch_norm(graph, call)
    return _self_normalised(graph, call, x)


def layer_norm(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Statistics over the last axes, RMSNorm's too: a channel less would change them, so what is normalised together stays."""
    x = graph.signal(call["input"])
    axes = range(len(x.shape) - len(call["normalized_shape"]), len(x.shape))
    for name in ("weight", "bias"):
        if isinstance(call.arguments.get(name), Parameter):
            graph.frozen[call[name].name] = f"{call.layer} normalises all channels together"
    cells = blanked(x.cells, value=True, unit=True)
    read_together(graph, call, x.channel, axes, f"{call.layer} normalises all channels together")
    return Signal(shape=x.shape, cells=cells)


def group_norm(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Mean and variance over groups of channels of axis 1: a group goes as a whole, or stays as a whole."""
    x = graph.signal(call["input"])
    groups = int(call["num_groups"])
    channels, vector = channel_vector(x.cells, 1)
    if vector.size == 1:
        return untracked(graph, call, "the normalised tensor has a fixed size")
    graph.unify(channels, vector["channel"][None], call.layer)
    rows = vector["channel"].reshape(groups, -1)
    if (rows < 0).any():
        return untracked(graph, call, "some normalised channels have a fixed size")
    note_numbers(graph, call)
    graph.demands.append(AllOrNone(rows=rows, layer=call.layer))
    graph.couplings.append(rows)
    grouped = vector.reshape(groups, -1)
    all_known = grouped["known"].all(1, keepdims=True)
    mean = grouped["value"].mean(1, keepdims=True)
    deviation = np.sqrt(grouped["value"].var(1, keepdims=True) + call["eps"])
    value = ((grouped["value"] - mean) / deviation).reshape(-1)
    known = np.broadcast_to(all_known, grouped.shape).reshape(-1)
    return _scaled(graph, call, x, blanked(along(constant(vector, value, known), 1, len(x.shape)), unit=True))


def _self_normalised(graph: ChannelGraph, call: OperatorCall, x: Signal) -> Signal:
    """Normalise each channel with its own present statistics: a constant becomes 0, then the bias."""
    cells = constant(x.cells, np.zeros(x.cells.shape), x.cells["known"])
    _remember(graph, call, cells)
    return _scaled(graph, call, x, cells)


def _scaled(graph: ChannelGraph, call: OperatorCall, x: Signal, cells: Cells) -> Signal:
    """Multiply by the weight and add the bias, per channel of axis 1, where the layer has them."""
    for key in ("weight", "bias"):
        if call[key] is None:
            continue
        row = along(graph.signal(call[key]).cells, 1, len(x.shape))
        graph.unify(cells["channel"], row["channel"], f"{call.layer} normalises a tensor of fixed size")
        cells = np.broadcast_to(cells, np.broadcast_shapes(cells.shape, row.shape)).copy()
        if key == "weight":
            known = (cells["known"] & row["known"]) | np.broadcast_to(row["known"] & (row["value"] == 0), cells.shape)
            cells = constant(cells, cells["value"] * row["value"], known)
        else:
            cells = constant(cells, cells["value"] + row["value"], cells["known"] & row["known"])
    return Signal(shape=x.shape, cells=cells)


def _remember(graph: ChannelGraph, call: OperatorCall, cells: Cells) -> None:
    """Note whose units a BatchNorm's affine sees."""
    if isinstance(call["weight"], Parameter) and isinstance(call["bias"], Parameter):
        vector = channel_vector(cells, 1)[1]
        graph.affines.append(BatchNormAffine(weight=call["weight"].name, bias=call["bias"].name, units=vector["unit"]))


RULES: Mapping[str, Rule] = {
    "batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm_functional,
    "instance_norm": instance_norm,
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    "group_norm": group_norm,
}
