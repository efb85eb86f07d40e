"""One optimizer step: draw, forward and backward over the micro-batches, update."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tdcompress.methods.base import TrainStep
from tdcompress.methods.wrapper import SparseNet
from tdcompress.seeds import derived_seed
from tdcompress.train.data import Loader, TrainBatch
from tdcompress.train.distill import Lesson
from tdcompress.train.distributed import World, elected, vote
from tdcompress.train.evaluate import Precision, autocast
from tdcompress.train.settings import TrainSettings
from tdcompress.train.update import Updater


class Stepper:
    """Makes steps. What a step draws follows from the seed and the step's number alone.

    Attributes:
        agreed: the signal that any of several processes had got by the last step; None in one process.

    Args:
        net: the network with its method, on ``device``.
        loader: gives the batches, there too.
        train_size: number of training samples.
        settings: the recipe's [train].
        updater: applies the gradients.
        precision: what the network computes in.
        seed: of all that is drawn.
        device: of network and samples.
        world: the processes that share each batch.
        asked: the number of a signal that asks this process to stop, or None; called in each step of several processes.
        lesson: what the network also learns from, or None.
    """

    def __init__(
        self,
        net: SparseNet,
        loader: Loader,
        train_size: int,
        settings: TrainSettings,
        updater: Updater,
        *,
        precision: Precision,
        seed: int,
        device: torch.device,
        world: World,
        asked: Callable[[], int | None],
        lesson: Lesson | None = None,
    ) -> None:
        self._precision, self._asked, self._lesson = precision, asked, lesson
        self.agreed: int | None = None
        self._net, self._loader, self._settings, self._updater = net, loader, settings, updater
        self._train_size = train_size
        self._seed, self._device, self._world = seed, device, world
        self._generator = torch.Generator(device)
        self._wrapped = world.wrap(net)
        self._forward: Callable[..., Tensor] = torch.compile(self._wrapped) if settings.compile else self._wrapped

    def step(self, step: int, lr: float) -> tuple[float, int]:
        """One optimizer step.

        Args:
            step: optimizer steps done.
            lr: the learning rate.

        Returns:
            The mean loss with the method's penalty, and how many units were answered rightly, in all processes.

        Raises:
            TrainingError: a loss or gradient is not finite; nothing was updated.
        """
        self._net.train()
        whole, index = divmod(step, self._loader.steps_per_epoch)
        epoch = step / self._loader.steps_per_epoch
        moment = TrainStep(
            epoch=epoch, share=epoch / self._settings.epochs, train_size=self._train_size, process=self._world.rank
        )
        self._net.begin_step(moment, self._drawing("method", step))
        if self._net.method.frozen(epoch):
            self._updater.freeze(self._net.parameters_by_name(), self._net.method.dropped())
        batches = self._loader.step(whole, index, self._drawing("augment", step))
        # every process has numbers of its own
        seed_global_generators(derived_seed(self._seed, "network", step, self._world.rank), self._device)
        measured = torch.zeros(2, device=self._device)
        for number, batch in enumerate(batches, start=1):
            with self._gradients_exchanged(last=number == len(batches)):
                measured += self._backward(batch)
        where = f"step {step + 1} (epoch {whole + 1})"
        if self._world.size == 1:
            loss, correct = self._updater.apply(measured, lr, where)
        else:
            votes = vote(self._asked(), self._device)
            loss, correct, *counts = self._updater.apply(self._world.total(torch.cat([measured, votes])), lr, where)
            self.agreed = elected(counts)
        self._net.end_step()
        return loss, int(correct)

    def _backward(self, batch: TrainBatch) -> Tensor:
        """Add a micro-batch's share of the gradient; returns (its share of the mean loss, how many were right)."""
        loss, right = batch.loss(self._network, self._lesson)
        penalty = self._net.penalty()
        share = (loss if penalty is None else loss + penalty) / batch.parts
        torch.autograd.backward(share)  # processes average their gradients; of the loss we take the mean ourselves
        return torch.stack([share.detach() / self._world.size, right])

    def _network(self, *inputs: Tensor) -> Tensor:
        with autocast(self._device, self._precision):
            return self._forward(*inputs).float()

    def _drawing(self, stream: str, step: int) -> torch.Generator:
        return self._generator.manual_seed(derived_seed(self._seed, stream, step))

    def _gradients_exchanged(self, *, last: bool) -> AbstractContextManager[None]:
        """Processes exchange gradients once in a step, with the last micro-batch."""
        if isinstance(self._wrapped, DistributedDataParallel) and not last:
            waiting: AbstractContextManager[None] = self._wrapped.no_sync()
            return waiting
        return nullcontext()


def seed_global_generators(seed: int, device: torch.device) -> None:
    """Seed torch's global generators, which a network's own dropout draws from.

    Args:
        seed: of one step.
        device: where the network runs. What it draws to decide on its way, which layers to leave out for example, it draws on the
            host.
    """
    torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which would seed all GPUs too
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
