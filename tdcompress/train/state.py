"""A training's tensors by name, and back: network, method, optimizer, random generators."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tdcompress.errors import ArtifactError


def state_tensors(
    net: nn.Module, optimizer: torch.optim.Optimizer, generators: Mapping[str, torch.Generator], device: torch.device
) -> dict[str, Tensor]:
    """Everything that the next step depends on.

    Args:
        net: network and method.
        optimizer: over parameters of ``net``; its settings are not state, its tensors are.
        generators: by name.
        device: whose global generator the network's own dropout draws from.

    Returns:
        ``net/<name>``, ``optimizer/<key>/<parameter>``, ``random/<name>``; these share memory with the training.
    """
    tensors = {f"net/{name}": value for name, value in net.state_dict().items()}
    for name, parameter in net.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{key}/{name}"] = value
            elif value is not None:
                raise TypeError(f"{type(optimizer).__name__} keeps a {type(value).__name__} as {key}")
    tensors |= {f"random/{name}": generator.get_state() for name, generator in generators.items()}
    tensors["random/cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    return tensors


def load_tensors(
    tensors: Mapping[str, Tensor],
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    generators: Mapping[str, torch.Generator],
    device: torch.device,
) -> None:
    """Put the tensors of `state_tensors` back, in place.

    Raises:
        ArtifactError: they are of another network, or of another kind of device; names the tensor.
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
            key, _, parameter = rest.partition("/")
            owner = parameters[parameter]
            # fused kernels walk memory, so a moment must have its parameter's strides
            moment = torch.empty_like(owner).copy_(value) if value.shape == owner.shape else value.to(owner.device)
            optimizer.state[owner][key] = moment
    if ("random/cuda" in tensors) != (device.type == "cuda"):
        raise ArtifactError(f"the checkpoint is of another kind of device than {device.type}: go on there, or remove it")
    for name, generator in generators.items():
        generator.set_state(tensors[f"random/{name}"])
    torch.set_rng_state(tensors["random/cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random/cuda"], device)
