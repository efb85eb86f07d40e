"""What a task is: one learning problem and its data, with all that stages, runs and reports have to know of either.

To add one: a subclass of `LearningTask` in a file of its own and its line in `registry.py`; settings of its data, which name it
(`tdcompress.data.base.DataSettings.task`); and networks that take its `NetworkInterface`.

    recipe's [data] -> DataSettings.load() -> data  --registry-->  LearningTask(data)
                     what stages prepared of it, by role --------------|
      interface     what a network has to take and give              | models: ModelSettings.build(interface)
      train_set     batches that know their loss                     | stages train, finetune: train.loop
      test_set      right answers while it trains                    |
      measured      the figure of the report, in torch               | every stage that makes a network
      examples      some real inputs                                 | units, shrink's certificate, MACs
      exports       ONNX files, what goes with them, their measure   | stage export
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tdcompress.export.check import OnnxNetwork
from tdcompress.models.base import NetworkInterface
from tdcompress.records.measures import FileFigure, Measure
from tdcompress.train.data import TestSet, TrainSet

CHECKED_SAMPLES = 64
"""Real samples on which a file is compared with torch."""
CALIBRATION_SAMPLES = 256
"""Training samples that ranges of int8 activations come from."""

ANY: Final = object()
"""Of a key's refused values: all."""

NetworkInputs = tuple[Tensor, ...]
"""What a network is called with: (B, ...) each, but for inputs that have no batch."""

Said = Callable[[int, int], None]
"""Told (done, of how many) between batches; may raise to leave early."""


@dataclass(frozen=True, kw_only=True)
class ExportPart:
    """One ONNX file of a network, and the real inputs that it is traced, compared and shipped with.

    Attributes:
        file: its name, "model.onnx"; of several parts the first one carries the metadata.
        module: what becomes the file, in eval mode on the CPU.
        samples: inputs, each (N, ...) with up to 64 real samples; torch and onnxruntime are compared on them, and the first
            ones are shipped with their outputs.
        names: of the inputs. Outputs are named by what the module returns (`tdcompress.export.outputs`).
        axes: of each input the axes that may have any length, with their names; one name is one length, of two or more in
            ``samples``. None = the first axis of every input is the batch, and both are compared in batches of 1, 7 and 64.
        others: inputs of other lengths, on which both are compared too.
        shipped: how many samples are shipped.
        calibration: more inputs, of training samples, for ranges of int8 activations.
    """

    file: str
    module: nn.Module
    samples: NetworkInputs
    names: tuple[str, ...] = ("input",)
    axes: tuple[Mapping[int, str], ...] | None = None
    others: tuple[NetworkInputs, ...] = ()
    shipped: int = 16
    calibration: Callable[[], NetworkInputs]


@dataclass(frozen=True, kw_only=True)
class FileMeasure:
    """The task's measure of a network's files.

    Attributes:
        accuracy: 0..1.
        how: it was counted, as its tool states it; may be empty.
        unlike_torch: test samples that the files answer otherwise than torch, as far as the task allows it; None where answers
            were not compared one by one.
    """

    accuracy: float
    how: str = ""
    unlike_torch: int | None = None


Files = Mapping[str, OnnxNetwork]
"""A network's files by name, under onnxruntime."""


def _no_figures(files: Files, said: Said) -> tuple[FileFigure, ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class ExportSet:
    """The files that a network becomes.

    Attributes:
        parts: the ONNX files; the first one is the row's own.
        facts: what a deployer has to know to use them, as JSON-able metadata of the first file. Where a benchmark's call is more
            than one run of one file, ``task`` is the task's name (`tdcompress.bench.workloads`).
        measured: the task's measure of the files. ``expected`` is torch's (0..1) of the same network, None where the files'
            values are rounded. Raises VerificationError where both differ by more than the task allows (design, rule 5).
        figures: what else is measured of the files, which may take longer.
        extras: what else is shipped, by file name, such as a vocabulary.
        recorded: of these, what they have to give on any machine: arrays (N, ...) that ``verify`` makes anew
            (`tdcompress.runs.verification.EXTRAS`).
    """

    parts: tuple[ExportPart, ...]
    facts: Mapping[str, Any]
    measured: Callable[[Files, float | None, Said], FileMeasure]
    figures: Callable[[Files, Said], tuple[FileFigure, ...]] = _no_figures
    extras: Mapping[str, bytes] = field(default_factory=dict)
    recorded: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)


class LearningTask(ABC):
    """A learning problem with its data; made anew from a loaded data set, and never changed.

    Args:
        data: the loaded data set.
        prepared: what stages made of it, by role: all that `prepares` names. While that is not made yet, none; then
            `interface` is known and nothing else.

    Attributes:
        name: as settings of data name it.
        measure: what every ``accuracy`` in a record is (0..1), and how people read it.
        prepares: names of the stages that make something of the data, once for all trainings, such as a vocabulary. Each makes
            one file, and is an input of the training by this name.
        refused: values of keys of [train], [prune] and [export] that it cannot have, by (key, value): why, and what to take.
            `ANY` is every value that is given.
    """

    name: ClassVar[str]
    measure: ClassVar[Measure]
    prepares: ClassVar[tuple[str, ...]] = ()
    refused: ClassVar[Mapping[tuple[str, object], str]] = {}

    @abstractmethod
    def __init__(self, data: Any, **prepared: bytes) -> None: ...

    @property
    @abstractmethod
    def interface(self) -> NetworkInterface:
        """What a network has to take and give."""

    @property
    @abstractmethod
    def test_samples(self) -> int:
        """Size of the test set that the measure is taken on."""

    @property
    def guessing(self) -> float:
        """The measure (0..1) of one answer to all that is asked; a network with no more has learnt next to nothing."""
        return 0.0

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person should know of the data that is trained and measured on; a training's record has it."""
        return ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label; () where there are none."""
        return ()

    @abstractmethod
    def train_set(self, seed: int) -> TrainSet:
        """Training samples.

        Args:
            seed: of the training, for what is drawn once for all epochs.
        """

    @abstractmethod
    def test_set(self) -> TestSet:
        """Test samples, by whose right answers a training is watched."""

    @abstractmethod
    def examples(self, count: int = 2) -> NetworkInputs:
        """NetworkInputs of ``count`` real test samples on the CPU, ready for the network: float32 (B, C, H, W) of images.

        Units are found, MACs are counted and shrinking is certified with them.
        """

    @abstractmethod
    def training_batches(self, seed: int, count: int, device: torch.device, *, augmented: bool) -> Iterable[NetworkInputs]:
        """NetworkInputs of training samples, drawn without replacement; all where there are no more.

        A batch is made when it is asked for: all of them together may be larger than memory.

        Args:
            seed: of the training; the draw follows from it.
            count: how many samples.
            device: where the batches lie.
            augmented: change them at random, as a training does; the same way each time.
        """

    @abstractmethod
    def measured(self, network: nn.Module, device: torch.device) -> float:
        """The measure of a network on the test set, in float32, 0..1.

        Args:
            network: as it is deployed: one that `interface` describes, or a smaller one; moved to the device.
            device: where it runs.

        Raises:
            VerificationError: an output that is not finite.
        """

    @abstractmethod
    def loss_batches(self, size: int, device: torch.device) -> list[tuple[NetworkInputs, Tensor]]:
        """The test set as (inputs, targets), floating-point inputs in float64: for derivatives of the loss.

        Args:
            size: samples of a batch.
            device: where they lie.
        """

    @abstractmethod
    def summed_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch, summed over its units.

        Args:
            outputs: of the network, (B, classes), or (B, T, vocabulary) of translations.
            targets: of `loss_batches`, int64 (B,) or (B, T).
        """

    @abstractmethod
    def exports(self, network: nn.Module, *, pixels: bool) -> ExportSet:
        """The ONNX files of a network.

        Args:
            network: in eval mode on the CPU.
            pixels: the recipe's ``export.input = "uint8"``: preprocessing goes into the file.

        Raises:
            UserError: this task cannot export so.
        """
