"""A network run in another way than it stands: with other tensors in place of its own, or in eval mode."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call as swap_names


def functional_call(
    model: nn.Module, tensors: Mapping[str, Tensor], inputs: tuple[Any, ...], keywords: Mapping[str, Any] | None = None
) -> Any:
    """``torch.func.functional_call``, also for networks that hold one module under several names.

    torch's swaps the tensors of such a module once for each name. What it gives back last is not the module's own, but what it
    had put there itself: the network has lost its parameter. Here each place is swapped once.

    Args:
        model: any module; has its own tensors again afterwards.
        tensors: by the names of ``named_parameters`` and ``named_buffers``, each of its shape. Layers that share one share what
            is put there.
        inputs: of the model.
        keywords: of the model.

    Returns:
        What the model returns.
    """
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    names = {tensor: name for name, tensor in own.items() if name in tensors}
    places = {
        f"{prefix}.{key}" if prefix else key: tensors[names[tensor]]
        for prefix, module in model.named_modules()
        for key, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None and tensor in names
    }
    return swap_names(model, places, inputs, dict(keywords or {}), tie_weights=False)


@contextmanager
def evaluating(model: Callable[..., Tensor]) -> Iterator[None]:
    """A module in eval mode for the block; each of its modules gets its own mode back."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
