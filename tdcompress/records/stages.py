"""What each stage hands on."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from tdcompress.codec import Coded, Json, decode_fields, encode_fields
from tdcompress.records.latency import RowLatency
from tdcompress.records.measures import FileFigure, Measured

Values = Literal["float32", "float16", "int8", "codebook16", "int8-kept", "int4-kept"]
"""Number formats of a shipped file."""


@dataclass(frozen=True, kw_only=True)
class Throughput(Coded):
    """A record of a training: in files ``throughput`` is named by its unit, "images_per_second"."""

    throughput: float
    unit: str

    def to_json(self) -> Json:  # noqa: D102
        values = encode_fields(self)
        return {f"{self.unit}{_A_SECOND}" if key == "throughput" else key: item for key, item in values.items() if key != "unit"}

    @classmethod
    def from_json(cls, value: Json, where: str) -> Self:  # noqa: D102
        named = [key for key in value if key.endswith(_A_SECOND)] if isinstance(value, Mapping) else []
        if len(named) == 1:
            own = {"throughput": value[named[0]], "unit": named[0].removesuffix(_A_SECOND)}
            value = {key: item for key, item in value.items() if key != named[0]} | own
        return decode_fields(cls, value, where)


_A_SECOND = "_per_second"


@dataclass(frozen=True, kw_only=True)
class LayerCount:
    """How much of one prunable weight matrix is kept."""

    name: str
    shape: tuple[int, ...]
    total: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class VocabularyRecord:
    """A vocabulary of word pieces: how many there are, the special ones included, and the bytes of its file."""

    pieces: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class TrainRecord(Measured, Throughput):
    """One training. ``accuracy`` (0..1) is that of the deployed, unpruned network on the test set.

    ``path`` is "fast" or "reference" (`tdcompress.train.paths`), ``path_reason`` why that one.
    ``precision`` and ``threads`` are what they became on the machine that trained; ``notes`` say why.
    """

    method: str
    options: dict[str, Any]
    granularity: Literal["weight", "unit", "2:4", "1x4"]
    epochs: int
    accuracy: float
    seconds: float
    device: str
    path: str
    path_reason: str
    precision: Literal["float32", "bfloat16"]
    threads: int
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PrunedCount:
    """How many weights, 1x4 blocks or units one pruning was to take, and took.

    Attributes:
        total: of them, in what is prunable.
        asked: by the fraction: its floor of each filter, of each layer, or of all, as the shares split it.
        gone: fewer where one of each filter, or of each group of units, has to stay, or where kept units are aligned.
    """

    total: int
    asked: int
    gone: int


@dataclass(frozen=True, kw_only=True)
class PruneRecord(Measured):
    """One pruning. Sparsity is a share of zeros, 0..1: of the prunable weights, and of all the network's parameters.

    ``accuracy_before`` is with the training's BatchNorm statistics; None where they were not estimated again. ``pruned`` is None
    of a network that trained on.
    """

    layers: tuple[LayerCount, ...]
    accuracy: float
    parameters_total: int
    parameters_nonzero: int
    sparsity_prunable: float
    sparsity_model: float
    accuracy_before: float | None = None
    pruned: PrunedCount | None = None


@dataclass(frozen=True, kw_only=True)
class DeadUnits:
    """Units of one layer that are dead and had to stay, with the reason."""

    layer: str
    count: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class LayerUnits:
    """Units of one layer in the full network and in the shrunk one."""

    name: str
    before: int
    after: int


@dataclass(frozen=True, kw_only=True)
class UnitCount:
    """How many units of one layer are kept: those that pruning left alive, whether or not dead ones had to stay too."""

    name: str
    total: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class ShrinkRecord(Measured):
    """One shrink. MACs are multiply-accumulates of one sample; ``max_error`` is the float64 certificate's.

    ``notes`` say what a person should know about it.
    """

    layers: tuple[LayerUnits, ...]

    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int
    dead_but_kept: tuple[DeadUnits, ...]
    max_error: float
    max_output: float
    accuracy: float
    notes: tuple[str, ...] = ()

    def units(self) -> tuple[UnitCount, ...]:
        """Units of each layer that are alive."""
        dead: Counter[str] = Counter()
        for units in self.dead_but_kept:
            dead[units.layer] += units.count
        return tuple(UnitCount(name=layer.name, total=layer.before, kept=layer.after - dead[layer.name]) for layer in self.layers)


@dataclass(frozen=True, kw_only=True)
class FinetuneRecord(Measured, Throughput):
    """A shrunk network that trained on. ``accuracy`` (0..1) is its own, on the test set; ``seconds`` are of training steps."""

    epochs: int
    accuracy: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class AnalysisRecord(Measured):
    """What pruning a trained network is expected to do to the loss, to second order (section 5.1).

    Attributes:
        options: the method's own parameters.
        fraction: pruned share, 0..1; of the released evaluation at least gamma.
        gradient_term: -gradient . d, where d holds the pruned weights.
        curvature_term: 1/2 d' H d.
        measured: the change of the test loss.
        accuracy_unpruned: 0..1.
        accuracy_pruned: 0..1.
        bins: rows of the dependence matrix.
        kept_bins: those of weights that stay.
        samples: test samples behind loss and derivatives.
    """

    method: str
    options: dict[str, Any]
    seed: int
    epochs: int
    device: str
    train_seconds: float
    fraction: float
    gradient_term: float
    curvature_term: float
    measured: float
    accuracy_unpruned: float
    accuracy_pruned: float
    bins: int
    kept_bins: int
    samples: int

    @property
    def estimate(self) -> float:
        """|delta E| of Table 1."""
        return abs(self.gradient_term + self.curvature_term)


@dataclass(frozen=True, kw_only=True)
class StoreRecord(Measured):
    """Weights as scipy CSR on disk, read back bit-exactly and measured."""

    stored_bytes: int
    dense_bytes: int
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class ExportRecord(Measured):
    """One ONNX file. ``bound_bytes`` is what an ideal code of the kept weights and their positions would take.

    Attributes:
        parameters_nonzero: of the network that was exported, before any rounding of its values.
        how: ``accuracy`` was counted, as its tool states it; may be empty.
        figures: what else was measured.
        unlike_torch: test samples that the file answers otherwise than torch, as far as the task allows it; None where answers
            were not compared one by one.
        notes: what a person should know about it.
        as_asked: weights that are stored in ``values``.
        kept_float32: weight -> reason, for matrices that ``values`` asks to round and that are not; of several files each name
            has its file's in front.
    """

    opset: int
    values: Values
    onnx_bytes: int
    bound_bytes: float
    encodings: dict[str, int]
    parameters_nonzero: int
    max_error: float
    max_output: float
    samples: int
    accuracy: float
    how: str = ""
    figures: tuple[FileFigure, ...] = ()
    unlike_torch: int | None = None
    notes: tuple[str, ...] = ()
    as_asked: int | None = None
    kept_float32: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BenchRecord:
    """Latencies by row id, and the facts of the hosts they were measured on."""

    rows: dict[str, tuple[RowLatency, ...]]
    hosts: dict[str, dict[str, Any]]
