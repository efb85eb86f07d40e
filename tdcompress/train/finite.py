"""Parameters and buffers that stop being finite end a training, before they are saved or measured."""

import torch
from torch import Tensor, nn

from tdcompress.errors import TrainingError
from tdcompress.train.optim import PREFIX
from tdcompress.train.settings import TrainSettings


class FiniteWatch:
    """Looks after the tensors that are finite when a training begins; a mask of minus infinities is not among them.

    A loss can be finite beside them: an input that is too large makes a BatchNorm's running variance infinite, and is itself
    divided by its own deviation.

    Args:
        net: the network and its method.
        lr_key: the recipe's key of the learning rate.
    """

    def __init__(self, net: nn.Module, lr_key: str = TrainSettings.lr_key) -> None:
        self._net, self._lr_key = net, lr_key
        tensors = _floating(net)
        self._names = {name for name, finite in zip(tensors, _finite(tensors), strict=True) if finite}

    def check(self, where: str) -> None:
        """Look at them all, on the device, with one transfer.

        Args:
            where: names the step.

        Raises:
            TrainingError: names the first tensor that is not finite, and its layer.
        """
        tensors = {name: tensor for name, tensor in _floating(self._net).items() if name in self._names}
        bad = [name.removeprefix(PREFIX) for name, finite in zip(tensors, _finite(tensors), strict=True) if not finite]
        if bad:
            others = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise TrainingError(
                f"{where}: {bad[0]}{others} is no longer finite; nothing of it was saved. What this layer reads is too large:"
                f" look at the images and their standardisation, or lower {self._lr_key}"
            )


def _floating(net: nn.Module) -> dict[str, Tensor]:
    tensors = (*net.named_parameters(), *net.named_buffers())
    return {name: tensor.detach() for name, tensor in tensors if tensor.is_floating_point()}


def _finite(tensors: dict[str, Tensor]) -> list[bool]:
    """Whether each is finite throughout."""
    if not tensors:
        return []
    found: list[bool] = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).tolist()
    return found
