"""Make a module narrow: index its tensors, add the biases that folding needs, and set the sizes its layers report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tdcompress.errors import ModelError
from tdcompress.shrinking.channels import ChannelGraph, Matrix
from tdcompress.shrinking.decide import Decision
from tdcompress.shrinking.demands import MatrixReader, matrix_readers
from tdcompress.shrinking.kernel_taps import shifts
from tdcompress.sparsity.units import MATRIX_TYPES, is_transposed_linear

KeptIndices = list[int] | list[list[int]]  # indices kept along an axis; for axis 1 of a grouped weight, one list per group


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What stays of one tensor.

    Attributes:
        shape: of the tensor in the full network.
        keep: axis -> kept indices; an axis that is not listed stays whole. Axis 1 of a grouped weight has one list for each
            group that stays.
        groups: number of groups that stay, of a grouped weight.
    """

    shape: tuple[int, ...]
    keep: Mapping[int, KeptIndices]
    groups: int = 1

    def apply(self, tensor: Tensor, name: str) -> Tensor:
        """The kept part of a tensor.

        Raises:
            ModelError: the tensor has another shape than the one that was cut.
        """
        if tuple(tensor.shape) != self.shape:
            raise ModelError(
                f"{name} has shape {tuple(tensor.shape)}, but kept_channels describes one of shape {self.shape}:"
                " build the same network with the same arguments"
            )
        for axis, rows in sorted(self.keep.items()):
            if axis == 1 and rows and isinstance(rows[0], list):
                index = torch.tensor(rows, device=tensor.device)  # (groups, kept inputs per group)
                groups = index.shape[0]
                index = index.repeat_interleave(tensor.shape[0] // groups, 0)
                index = index.reshape(*index.shape, *(1,) * (tensor.ndim - 2))
                tensor = tensor.gather(1, index.expand(-1, -1, *tensor.shape[2:]))
            else:
                tensor = tensor.index_select(axis, torch.tensor(rows, device=tensor.device, dtype=torch.int64))
        return tensor.clone()


def cuts(graph: ChannelGraph, decision: Decision, narrowable: frozenset[str]) -> dict[str, Cut]:
    """What stays of each tensor that gets narrower.

    Args:
        graph: the network's.
        decision: what stays.
        narrowable: names of the tensors that may get narrower.
    """
    found: dict[str, Cut] = {}
    for name, matrix in graph.matrices.items():
        found[name] = _matrix_cut(graph, decision, matrix)
    for name, signal in graph.raw.items():
        live = decision.final.of(signal.channel)
        keep: dict[int, KeptIndices] = {}
        for axis in range(live.ndim):
            slices = live.any(tuple(a for a in range(live.ndim) if a != axis))
            if signal.tracked and not slices.all():
                keep[axis] = np.flatnonzero(slices).tolist()
        found[name] = Cut(shape=signal.shape, keep=keep)
    return {name: cut for name, cut in found.items() if cut.keep and name in narrowable}


def _matrix_cut(graph: ChannelGraph, decision: Decision, matrix: Matrix) -> Cut:
    shape = tuple(graph.state[matrix.parameter].shape)
    live = {matrix.out_axis: decision.final.of(matrix.outputs), 1 - matrix.out_axis: decision.final.of(matrix.inputs)}
    groups = int(live[0].any(1).sum())
    keep: dict[int, KeptIndices] = {}
    if not live[0].all():
        keep[0] = np.flatnonzero(live[0].ravel()).tolist()
    if not live[1].all():
        stays = live[0].any(1)
        rows = [np.flatnonzero(row).tolist() for row in live[1][stays]]
        if matrix.groups == 1:
            keep[1] = rows[0]
        elif not live[1][stays].all():
            keep[1] = rows
    return Cut(shape=shape, keep=keep, groups=groups)


def narrowed(model: nn.Module, cut: Mapping[str, Cut], new_biases: Sequence[str]) -> nn.Module:
    """Cut the tensors of a module in place, and set the sizes that its layers report; returns the module.

    Args:
        model: a copy of the full network.
        cut: by tensor name.
        new_biases: parameters that the full network does not have ("conv1.bias"); they are 0.

    Raises:
        ModelError: a name or shape that the network does not have.
    """
    owners = _owners(model)
    for name, part in cut.items():
        if name not in owners:
            raise ModelError(f"{type(model).__name__} has no tensor {name}: build the same network with the same arguments")
        old = owners[name][0][2]
        new = part.apply(old.detach(), name)
        replacement = nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new
        for module, attribute, _ in owners[name]:
            setattr(module, attribute, replacement)
            if isinstance(module, nn.modules.conv._ConvNd) and attribute == "weight":
                module.groups = part.groups
    for name in new_biases:
        try:
            layer = model.get_submodule(name.rpartition(".")[0])
        except AttributeError as error:
            raise ModelError(
                f"{type(model).__name__} has no layer for {name}: build the same network with the same arguments"
            ) from error
        weight = getattr(layer, "weight", None)
        assert isinstance(weight, Tensor)
        layer.bias = nn.Parameter(weight.new_zeros(_outputs(layer)), requires_grad=weight.requires_grad)
    for module in model.modules():
        _set_sizes(module)
    return model


def fold(narrow: nn.Module, full: ChannelGraph, decision: Decision, new_biases: Mapping[str, str]) -> None:
    """Add the constants of removed channels to the biases of the layers that read them, in place.

    Args:
        narrow: the narrow network; its biases change.
        full: channel graph of the full network.
        decision: which channels are gone.
        new_biases: weight name -> name of the bias that it got.
    """
    parameters = dict(narrow.named_parameters(remove_duplicate=False))
    for reader in matrix_readers(full):
        shift = folded(reader, full, decision)
        if shift is not None:
            bias = parameters[reader.bias or new_biases[reader.matrix.parameter]]
            with torch.no_grad():
                bias.add_(torch.from_numpy(shift).to(bias))


def folded(reader: MatrixReader, graph: ChannelGraph, decision: Decision) -> NDArray[np.float64] | None:
    """What removed constants add to the outputs that stay, (outputs,); None where nothing does.

    Args:
        reader: what reads the removed channels.
        graph: the network's.
        decision: what stays.
    """
    gone = ~decision.final.of(reader.matrix.inputs) & reader.leaves & (reader.vector["value"] != 0)
    if not gone.any():
        return None
    live = decision.final.of(reader.matrix.outputs)
    if not (reader.used & live[:, :, None] & gone[:, None, :]).any():
        return None
    weight = graph.state[reader.matrix.parameter]
    return shifts(weight, reader.matrix, reader.vector["value"], gone)[live]


def can_add_bias(model: nn.Module, reader: MatrixReader) -> bool:
    """Whether the layer that owns a weight applies it itself, so that it would use a bias if it had one."""
    layer, _, name = reader.matrix.parameter.rpartition(".")
    module = model.get_submodule(layer)
    if name != "weight" or not isinstance(module, MATRIX_TYPES) or type(module).forward not in _FORWARDS:
        return False
    return dict(model.named_modules(remove_duplicate=False)).get(reader.module) is module


_FORWARDS = tuple(kind.forward for kind in MATRIX_TYPES)


def _outputs(layer: nn.Module) -> int:
    _set_sizes(layer)
    size = getattr(layer, "out_channels", None) or getattr(layer, "out_features", None)
    assert isinstance(size, int)
    return size


def _owners(model: nn.Module) -> dict[str, list[tuple[nn.Module, str, Tensor]]]:
    """First qualified name of each tensor -> every (module, attribute, tensor) that holds it."""
    first: dict[int, str] = {}
    owners: dict[str, list[tuple[nn.Module, str, Tensor]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for members in (
            module.named_parameters(path, recurse=False, remove_duplicate=False),
            module.named_buffers(path, recurse=False, remove_duplicate=False),
        ):
            for name, tensor in members:
                key = first.setdefault(id(tensor), name)
                owners.setdefault(key, []).append((module, name.rpartition(".")[2], tensor))
    return owners


def _conv_sizes(module: nn.Module) -> None:
    assert isinstance(module, nn.modules.conv._ConvNd)
    rows, columns = module.weight.shape[0], module.weight.shape[1] * module.groups
    module.in_channels, module.out_channels = (rows, columns) if module.transposed else (columns, rows)


def _linear_sizes(module: nn.Module) -> None:
    assert isinstance(module, nn.Linear)
    module.out_features, module.in_features = module.weight.shape


def _batch_norm_sizes(module: nn.Module) -> None:
    assert isinstance(module, nn.modules.batchnorm._NormBase)
    for tensor in (module.weight, module.running_mean):
        if tensor is not None:
            module.num_features = len(tensor)


def _group_norm_sizes(module: nn.Module) -> None:
    assert isinstance(module, nn.GroupNorm)
    if module.affine:
        per_group = module.num_channels // module.num_groups
        module.num_channels = len(module.weight)
        module.num_groups = module.num_channels // per_group


def _embedding_sizes(module: nn.Module) -> None:
    assert isinstance(module, nn.Embedding)
    module.num_embeddings, module.embedding_dim = module.weight.shape


def _prelu_sizes(module: nn.Module) -> None:
    assert isinstance(module, nn.PReLU)
    module.num_parameters = len(module.weight)


_SIZES: Mapping[type[nn.Module], Callable[[nn.Module], None]] = {
    nn.modules.conv._ConvNd: _conv_sizes,
    nn.Linear: _linear_sizes,
    nn.modules.batchnorm._NormBase: _batch_norm_sizes,
    nn.GroupNorm: _group_norm_sizes,
    nn.Embedding: _embedding_sizes,
    nn.PReLU: _prelu_sizes,
}


def _set_sizes(module: nn.Module) -> None:
    """Of a layer that owns its weight; one that computes it is not narrowed, and asking for it may change what it stores."""
    if hasattr(module, "parametrizations"):
        return
    for kind, setter in _SIZES.items():
        if isinstance(module, kind):
            setter(module)
    if is_transposed_linear(module):
        assert isinstance(module.weight, Tensor)
        vars(module).update(nx=module.weight.shape[0], nf=module.weight.shape[1])
