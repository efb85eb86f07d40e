"""One optimizer step: draw, forward and backward over the micro-batches, update."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tdcompress.methods.base import TrainStep
from tdcompress.methods.wrapper import SparseNet
from tdcompress.seeds import derived_seed
from tdcompress.train.distill import Teacher
from tdcompress.train.distributed import World, elected, vote
from tdcompress.train.evaluate import Precision, autocast
from tdcompress.train.samples import TrainData
from tdcompress.train.settings import TrainSettings
from tdcompress.train.update import Updater


class Stepper:
    """Makes steps. What a step draws follows from the seed and the step's number alone.

    Attributes:
        agreed: the signal that any of several processes had got by the last step; None in one process.

    Args:
        net: the network with its method, on ``device``.
        data: training samples, there too.
        settings: the recipe's [train].
        updater: applies the gradients.
        precision: what the network computes in.
        seed: of all that is drawn.
        device: of network and samples.
        world: the processes that share each batch.
        asked: the number of a signal that asks this process to stop, or None; called in each step of several processes.
        teacher: what the network also learns from, or None.
    """

    def __init__(
        self,
        net: SparseNet,
        data: TrainData,
        settings: TrainSettings,
        updater: Updater,
        *,
        precision: Precision,
        seed: int,
        device: torch.device,
        world: World,
        asked: Callable[[], int | None],
        teacher: Teacher | None = None,
    ) -> None:
        self._precision, self._asked, self._teacher = precision, asked, teacher
        self.agreed: int | None = None
        self._net, self._data, self._settings, self._updater = net, data, settings, updater
        self._seed, self._device, self._world = seed, device, world
        self._generator = torch.Generator(device)
        self._wrapped = world.wrap(net)
        self._forward: Callable[[Tensor], Tensor] = torch.compile(self._wrapped) if settings.compile else self._wrapped

    def step(self, batch: Tensor, step: int, epoch: float, lr: float) -> tuple[float, int]:
        """One optimizer step.

        Args:
            batch: int64 (B,), indices of the samples of all processes.
            step: optimizer steps done.
            epoch: epochs done, with fraction.
            lr: the learning rate.

        Returns:
            The mean loss with the method's penalty, and how many samples were classified rightly.

        Raises:
            TrainingError: a loss or gradient is not finite; nothing was updated.
        """
        self._net.train()
        moment = TrainStep(epoch=epoch, share=epoch / self._settings.epochs, train_size=len(self._data), process=self._world.rank)
        self._net.begin_step(moment, self._drawing("method", step))
        if self._net.method.frozen(epoch):
            self._updater.freeze(self._net.parameters_by_name(), self._net.method.dropped())
        pixels, labels = self._data.pixels[batch], self._data.labels[batch]
        if self._data.augment is not None:
            # the whole batch in every process, so that each sample is changed as one process alone would
            pixels = self._data.augment(pixels, self._drawing("augment", step), self._data.mirrored(batch, int(epoch) % 2 == 1))
        self._seed_dropout(step)
        count = self._settings.accumulate
        micro_batches = zip(self._world.part(pixels).chunk(count), self._world.part(labels).chunk(count), strict=True)
        measured = torch.zeros(2, device=self._device)
        for index, (micro_pixels, micro_labels) in enumerate(micro_batches, start=1):
            with self._gradients_exchanged(last=index == count):
                measured += self._backward(micro_pixels, micro_labels)
        where = f"step {step + 1} (epoch {int(epoch) + 1})"
        if self._world.size == 1:
            loss, correct = self._updater.apply(measured, lr, where)
        else:
            votes = vote(self._asked(), self._device)
            loss, correct, *counts = self._updater.apply(self._world.total(torch.cat([measured, votes])), lr, where)
            self.agreed = elected(counts)
        self._net.end_step()
        return loss, int(correct)

    def _backward(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Add a micro-batch's share of the gradient; returns (its share of the mean loss, how many were right)."""
        images = self._data.preprocess(pixels)
        # The images' order decides every layer's. Weights keep theirs, so that checkpoints and selection see plain memory.
        order = torch.channels_last if self._settings.channels_last else torch.contiguous_format
        with autocast(self._device, self._precision):
            logits = self._forward(images.contiguous(memory_format=order)).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self._settings.label_smoothing)
        if self._teacher is not None:
            loss = self._teacher(loss, logits, images, self._precision)
        penalty = self._net.penalty()
        share = (loss if penalty is None else loss + penalty) / self._settings.accumulate
        torch.autograd.backward(share)  # processes average their gradients; of the loss we take the mean ourselves
        correct = (logits.detach().argmax(1) == labels).sum()
        return torch.stack([share.detach() / self._world.size, correct])

    def _drawing(self, stream: str, step: int) -> torch.Generator:
        return self._generator.manual_seed(derived_seed(self._seed, stream, step))

    def _seed_dropout(self, step: int) -> None:
        """Seed torch's global generator, which nn.Dropout draws from; every process has numbers of its own."""
        seed = derived_seed(self._seed, "network", step, self._world.rank)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which would seed GPUs too

    def _gradients_exchanged(self, *, last: bool) -> AbstractContextManager[None]:
        """Processes exchange gradients once in a step, with the last micro-batch."""
        if isinstance(self._wrapped, DistributedDataParallel) and not last:
            waiting: AbstractContextManager[None] = self._wrapped.no_sync()
            return waiting
        return nullcontext()
