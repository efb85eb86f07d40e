"""One optimizer update: L2, frozen zeros, the check that all is finite, clipping."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tdcompress.errors import TrainingError
from tdcompress.sparsity.freeze import moments
from tdcompress.train.optim import decayed_parameters
from tdcompress.train.settings import TrainSettings


def remedy(settings: TrainSettings) -> str:
    """What may help where a loss or gradient is not finite."""
    return f"Lower {settings.lr_key}, or set train.clip_norm"


class FrozenZeros:
    """Entries that are zero and stay so: pruned weights while a network is finetuned, or dropped ones once masks are frozen.

    Their gradients are zeroed, so that neither the gradient's norm nor the optimizer's moments see them; and they are set to
    zero again after each update, so that nothing an optimizer adds can leave a residue.

    Args:
        params: by name.
        keep: bool masks by parameter name, True = trained; of the parameter's shape, or broadcasting to it.
        optimizer: whose moments of these entries are zeroed with them, where they were trained before; None = they were not.

    Raises:
        ValueError: a mask for no parameter, or one that is not bool.
        RuntimeError: one of a shape that does not fit.
    """

    def __init__(
        self,
        params: Mapping[str, nn.Parameter],
        keep: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        unknown = sorted(set(keep) - set(params))
        if unknown:
            raise ValueError(f"keep: no parameter is called {', '.join(unknown)}")
        self._optimizer = optimizer
        self._pairs: list[tuple[nn.Parameter, Tensor]] = []
        for name, mask in keep.items():
            param = params[name]
            if mask.dtype != torch.bool:
                raise ValueError(f"keep: the mask of {name} is {mask.dtype}, not bool")
            self._pairs.append((param, ~mask.to(param.device).expand_as(param).contiguous()))
        self.clear()

    @torch.no_grad()
    def clear(self) -> None:
        """Set the frozen entries, and what the optimizer remembers of them, to exactly zero."""
        for param, frozen in self._pairs:
            param.masked_fill_(frozen, 0.0)
            for moment in () if self._optimizer is None else moments(self._optimizer, param):
                moment.masked_fill_(frozen, 0.0)

    @torch.no_grad()
    def clear_gradients(self) -> None:
        """Set their gradients to zero."""
        for param, frozen in self._pairs:
            if param.grad is not None:
                param.grad.masked_fill_(frozen, 0.0)


class Updater:
    """Applies one optimizer step to the gradients that the backward passes left.

    Args:
        net: the network and its method.
        optimizer: over its parameters.
        settings: the recipe's [train].
        frozen: entries that stay zero from the first step on, or None.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: TrainSettings,
        *,
        frozen: FrozenZeros | None,
    ) -> None:
        self._trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self._decayed = list(decayed_parameters(net).values()) if settings.l2 else []
        self._optimizer = optimizer
        self._settings = settings
        self._always: tuple[FrozenZeros, ...] = () if frozen is None else (frozen,)
        self._frozen: tuple[FrozenZeros, ...] = self._always

    @torch.no_grad()
    def freeze(self, params: Mapping[str, nn.Parameter], dropped: Mapping[str, Tensor]) -> None:
        """Set what a step drops to zero, with its moments, and keep it so in the update that follows.

        Nothing of it is remembered between steps: the lowest magnitudes are dropped, so that those zeros are dropped again.

        Args:
            params: by name.
            dropped: by parameter name, bool, broadcasting to it.
        """
        keep = {name: ~entries for name, entries in dropped.items()}
        self._frozen = (*self._always, FrozenZeros(params, keep, self._optimizer))

    @torch.no_grad()
    def apply(self, measured: Tensor, lr: float, where: str) -> list[float]:
        """Check, clip and update. What is not finite stops here, before any parameter has changed.

        Args:
            measured: (n,), on the network's device; the loss first. It and the gradient's norm come to the host in one
                transfer.
            lr: the network's learning rate in this step; a group's is this times its ``lr_scale``.
            where: names the step in an error.

        Returns:
            ``measured`` as numbers.

        Raises:
            TrainingError: the loss or a gradient is not finite; names the tensor.
        """
        for parameter in self._decayed:
            if parameter.grad is not None:
                parameter.grad.add_(parameter, alpha=self._settings.l2)
        for frozen in self._frozen:
            frozen.clear_gradients()
        gradients = [p.grad for p in self._trained.values() if p.grad is not None]
        # The norm of the whole gradient is finite only if every gradient is: one number decides, and clipping needs it too.
        norm = torch.nn.utils.get_total_norm(gradients)
        *numbers, norm_value = torch.cat([measured, norm.to(measured.dtype).view(1)]).tolist()
        if not (math.isfinite(numbers[0]) and math.isfinite(norm_value)):
            said = f"{where}: {self._culprit(numbers[0])}; the update was not made"
            raise TrainingError(f"{said}. {remedy(self._settings)}")
        clip_norm = self._settings.clip_norm
        if clip_norm is not None and norm_value > clip_norm:
            torch.nn.utils.clip_grads_with_norm_(list(self._trained.values()), clip_norm, norm)
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self._optimizer.step()
        for frozen in self._frozen:
            frozen.clear()
        self._optimizer.zero_grad(set_to_none=True)
        return numbers

    def _culprit(self, loss: float) -> str:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        bad = [n for n, p in self._trained.items() if p.grad is not None and not bool(p.grad.isfinite().all())]
        if not bad:
            return "the norm of the gradient is beyond float32"
        others = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        return f"the gradient of {bad[0]}{others} is not finite"
