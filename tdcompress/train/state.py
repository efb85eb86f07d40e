"""A training's tensors by name, and back: network, method, optimizer.

Random generators are not among them: what a step draws follows from the seed and the step's number (`seeds.derived_seed`).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tdcompress.errors import ArtifactError


def state_tensors(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that the next step depends on.

    Args:
        net: network and method.
        optimizer: over parameters of ``net``; its settings are not state, its tensors are.

    Returns:
        ``net/<name>`` and ``optimizer/<key>/<parameter>``; these share memory with the training.
    """
    tensors = {f"net/{name}": value for name, value in net.state_dict().items()}
    for name, parameter in net.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{key}/{name}"] = value
            elif value is not None:
                raise TypeError(f"{type(optimizer).__name__} keeps a {type(value).__name__} as {key}")
    return tensors


def load_tensors(tensors: Mapping[str, Tensor], net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the tensors of `state_tensors` back, in place.

    Args:
        tensors: of a checkpoint, by name; each of the shape that the network or optimizer has.
        net: the network and its method; changed.
        optimizer: over its parameters; changed.

    Raises:
        ArtifactError: they are of another network; names the tensor.
    """
    wanted = {f"net/{name}": value.shape for name, value in net.state_dict().items()}
    for name, shape in wanted.items():
        if name not in tensors or tensors[name].shape != shape:
            raise ArtifactError(f"the checkpoint has no {name} of shape {tuple(shape)}: it is of another network; remove it")
    extra = [name for name in tensors if name.startswith("net/") and name not in wanted]
    if extra:
        raise ArtifactError(f"the checkpoint has {extra[0]}, the network has not: it is of another network; remove it")
    net.load_state_dict({name.removeprefix("net/"): tensors[name] for name in wanted})
    parameters = dict(net.named_parameters())
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            key, _, owner_name = rest.partition("/")
            owner = parameters[owner_name]
            # fused kernels walk memory, so a moment must have its parameter's strides
            moment = torch.empty_like(owner).copy_(value) if value.shape == owner.shape else value.to(owner.device)
            optimizer.state[owner][key] = moment
