"""The network as it trains: an ordinary module whose parameters a method changes in every step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tdcompress.functional import functional_call
from tdcompress.methods.base import Method, TrainStep
from tdcompress.methods.l1 import l1_penalty


class SparseNet(nn.Module):
    """Runs a network with its method's parameters, by `functional_call`.

    Nothing in the network is replaced, so its state_dict, its types and its ONNX names stay as they are. Since this is a module,
    DistributedDataParallel and torch.compile can wrap it. Masks are drawn by ``begin_step``, outside what is compiled.

    Args:
        model: the network; it is held, not copied.
        method: built for this network.
        l1: beta of the L1 penalty, which combines with any method.
    """

    def __init__(self, model: nn.Module, method: Method, l1: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.l1 = l1

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """The dense, trained parameters."""
        return dict(self.model.named_parameters())

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """What the network returns: with the method's effective parameters in training, with its deployed ones in evaluation."""
        params = self.parameters_by_name()
        if not self.training:
            return functional_call(self.model, self.method.deployed(params), inputs, keywords)
        handles = self.method.instrument(self.model, params)
        try:
            return self.run_with(self.method.effective(params), inputs, keywords)
        finally:
            for handle in handles:
                handle.remove()

    def run_with(self, effective: Mapping[str, Tensor], inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """A forward pass in training.

        Args:
            effective: what stands in place of the network's parameters, by name, each of its shape.
            inputs: of the network.
            keywords: of the network.
        """
        return functional_call(self.model, effective, inputs, keywords)

    def penalty(self) -> Tensor | None:
        """What the method and L1 add to the mean loss of a step."""
        params = self.parameters_by_name()
        terms = [self.method.penalty(params)]
        if self.l1:
            terms.append(l1_penalty(params, self.method.targets.weights, self.l1))
        present = [term for term in terms if term is not None]
        return torch.stack(present).sum() if present else None

    @torch.no_grad()
    def begin_step(self, step: TrainStep, generator: torch.Generator) -> None:
        """Draw the masks of one optimizer step."""
        self.method.begin_step(self.parameters_by_name(), step, generator)

    @torch.no_grad()
    def end_step(self) -> None:
        """Let the method update its state after the optimizer's step."""
        self.method.end_step(self.parameters_by_name())

    @torch.no_grad()
    def plain(self) -> nn.Module:
        """The ordinary network, holding from now on the parameters that deployment runs with.

        Training is over then: gates and switches are multiplied in, and would be a second time if this wrapper ran again.
        """
        params = self.parameters_by_name()
        for name, value in self.method.deployed(params).items():
            params[name].copy_(value)
        return self.model
