"""Frozen typed results that stages hand on.

A record is data: no behaviour, no paths, no tensors; ``tdcompress.codec`` turns it into JSON and back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from tdcompress.codec import LEFT_OUT, VERSION, Coded, Json, decode_fields, encode_fields

Values = Literal["float32", "float16", "int8", "codebook16", "int8-kept", "int4-kept"]
"""Number formats of a shipped file."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What every ``accuracy`` of a run is, and how people read it. In files it is 0..1, and higher is better.

    Attributes:
        name: as it stands in sentences and titles: "accuracy", "BLEU".
        unit: what stands behind a number: "%", or nothing.
        scale: what a number is multiplied by to be read.
        counts_samples: it is the share of the test samples that are right, so that one more of them is 1/N.
    """

    name: str
    unit: str = ""
    scale: float = 100.0
    counts_samples: bool = False


ACCURACY = Measure(name="accuracy", unit="%", counts_samples=True)
BLEU = Measure(name="BLEU")
MEASURES: Mapping[str, Measure] = {"classification": ACCURACY, "translation": BLEU}
"""Task -> what its ``accuracy`` is: for readers of files, which import no task, since these need torch."""


@dataclass(frozen=True, kw_only=True)
class FileFigure:
    """One more thing that was measured of a file on the test set, besides its ``accuracy``.

    Attributes:
        measure: what it is, and how people read it.
        value: 0..1.
        how: it was counted, as its tool states it; may be empty.
    """

    measure: Measure
    value: float
    how: str = ""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A record with an ``accuracy``, or with several: what that is."""

    measure: Measure = field(default=ACCURACY, metadata=LEFT_OUT)


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
class PruneRecord(Measured):
    """One pruning. Sparsity is a share of zeros, 0..1: of the prunable weights, and of all the network's parameters.

    ``accuracy_before`` is with the training's BatchNorm statistics; None where they were not estimated again.
    """

    layers: tuple[LayerCount, ...]
    accuracy: float
    parameters_total: int
    parameters_nonzero: int
    sparsity_prunable: float
    sparsity_model: float
    accuracy_before: float | None = None


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
        fraction: pruned share, 0..1.
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


LatencyClaim = Literal["faster", "slower", "none"]


@dataclass(frozen=True, kw_only=True)
class RowLatency:
    """Latency of one file on one host; ratio = time / time of the dense network, below 1 is faster, with a 95 % interval.

    ``tokens`` are those that a call says, such as a translation; None where it says none.
    """

    host: str
    backend: str
    provider: str
    threads: int
    batch: int
    p50_ns: float
    ratio_to_dense: float
    ratio_low: float
    ratio_high: float
    claim: LatencyClaim
    reason: str = ""
    tokens: int | None = field(default=None, metadata=LEFT_OUT)

    def __post_init__(self) -> None:
        for name in ("threads", "batch"):
            if (count := getattr(self, name)) < 1:
                raise ValueError(f"{name}: {count} is out of range, 1 or more")
        for name in ("p50_ns", "ratio_to_dense", "ratio_low", "ratio_high", "tokens"):
            if (number := getattr(self, name)) is not None and number < 0:
                raise ValueError(f"{name}: {number} is out of range, 0 or more")
        if self.ratio_low > self.ratio_high:
            raise ValueError(f"ratio_low: {self.ratio_low} is above ratio_high, {self.ratio_high}")

    @property
    def tokens_per_second(self) -> float | None:
        """Of the median call; None where a call says no tokens."""
        return None if self.tokens is None else self.tokens / (self.p50_ns / 1e9)


@dataclass(frozen=True, kw_only=True)
class BenchRecord:
    """Latencies by row id, and the facts of the hosts they were measured on."""

    rows: dict[str, tuple[RowLatency, ...]]
    hosts: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RowConfig:
    """How the network of a row was made: what tells the rows of a report apart, made once from the recipe.

    A field that tells a key of the recipe names it, as ``key``.

    Attributes:
        options: the method's own parameters.
        trained_granularity: what was dropped in training where it is not what was pruned, else None.
        scope: inside what units were ranked when pruned.
        unit: what a pruned unit is.
        shares: how the pruned share was split where that is not how the training split its own (``options``); None = as there.
        evaluation: "released" = all candidates of the training were pruned too.
        epochs: of the training and of fine-tuning.
        finetune_epochs: those of ``epochs`` that came after pruning or shrinking.
        finetune_after: after which of them; None where there was no fine-tuning.
        values: number format of the file's weights.
        differs: settings that nothing above tells, dotted key of the recipe -> value: those in which the run's rows differ, and
            those of [prune], [finetune] and [shrink] that are not at their defaults.
    """

    method: str
    options: dict[str, Any]
    granularity: Literal["weight", "unit", "2:4", "1x4"] = field(metadata={"key": "prune.granularity"})
    trained_granularity: Literal["weight", "unit", "2:4", "1x4"] | None = None
    fraction: float | None = field(metadata={"key": "prune.fraction"})
    keep_per_filter: int | None = field(metadata={"key": "prune.keep_per_filter"})
    scope: Literal["layer", "group"] = field(metadata={"key": "prune.scope"})
    unit: Literal["whole", "filter"] = field(default="whole", metadata={"key": "prune.unit"})
    shares: Literal["filter", "layer", "erk", "global"] | None = field(default=None, metadata={"key": "prune.shares"})
    evaluation: Literal["plain", "released"] = field(default="plain", metadata={"key": "prune.evaluation"})
    seed: int
    epochs: int = field(metadata={"key": "train.epochs"})
    finetune_epochs: int = field(default=0, metadata={"key": "finetune.epochs"})
    finetune_after: Literal["prune", "shrink"] | None = field(default=None, metadata={"key": "finetune.after"})
    values: Values = field(metadata={"key": "export.values"})
    differs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row(RowConfig):
    """One line of a report: one network at one pruning, as it is deployed.

    Attributes:
        id: short and unique in the run: "targeted-0.9".
        accuracy_dense: of the same training, unpruned.
        accuracy_masked: right after pruning, with the BatchNorm statistics that the row has.
        accuracy_before: likewise, with the training's, where they were estimated again; else None.
        accuracy_finetuned: after fine-tuning, before or after shrinking; None where there was none.
        parameters_total: of the full network.
        parameters_nonzero: of the deployed one: as trained, pruned, shrunk and fine-tuned, before its values are rounded.
        sparsity_prunable: share of zeros (0..1) among the prunable weights of the pruned network, before shrinking.
        sparsity_model: likewise among all its parameters.
        onnx_bytes: of the file as it lies in the run's folder.
        layers: how much of each prunable matrix was kept, before shrinking.
        why: what can make this row faster than the dense file, or why nothing can.
        shrunk: what shrinking did, layer by layer.
        how: ``accuracy_onnx`` was counted, as its tool states it; may be empty.
        figures: what else was measured of the file.
        unlike_torch: test samples that the file answers otherwise than torch; None where they were not compared one by one.
        kept_float32: as in ``ExportRecord``.
    """

    RETIRED: ClassVar[frozenset[str]] = frozenset({"selectable"})

    id: str
    train_seconds: float
    device: str
    accuracy_dense: float
    accuracy_masked: float
    accuracy_shrunk: float | None = None
    accuracy_stored: float | None = None
    accuracy_onnx: float
    parameters_total: int
    parameters_nonzero: int
    sparsity_prunable: float
    sparsity_model: float
    macs: int
    onnx_file: str
    onnx_bytes: int
    dense_onnx_bytes: int
    bound_bytes: float
    stored_bytes: int | None = None
    why: str
    latency: tuple[RowLatency, ...] = ()
    layers: tuple[LayerCount, ...] = ()
    shrunk: ShrinkRecord | None = None
    accuracy_finetuned: float | None = None
    accuracy_before: float | None = None
    how: str = ""
    figures: tuple[FileFigure, ...] = ()
    unlike_torch: int | None = None
    kept_float32: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("onnx_bytes", "dense_onnx_bytes"):
            if (size := getattr(self, name)) < 1:
                raise ValueError(f"{name}: {size} is out of range, 1 or more")
        for name in _SHARES:
            if (share := getattr(self, name)) is not None and not 0 <= share <= 1:
                raise ValueError(f"{name}: {share} is out of range, 0 to 1")


_SHARES = (
    "fraction",
    "accuracy_dense",
    "accuracy_masked",
    "accuracy_before",
    "accuracy_finetuned",
    "accuracy_shrunk",
    "accuracy_stored",
    "accuracy_onnx",
    "sparsity_prunable",
    "sparsity_model",
)


@dataclass(frozen=True, kw_only=True)
class Report(Measured):
    """Everything that report.json holds.

    Attributes:
        rows: one per deployed network.
        selected: id of the row that became model.onnx, or None with the reason in ``notes``.
        hosts: facts of each host that latencies were measured on, by its id.
        versions: python, torch, onnx, onnxruntime, ...
        model_options: the network's own keys that are not at their defaults.
        warning: what makes its numbers worthless, if anything does; said before them all.
        test_samples: size of the test set that every accuracy was measured on.
        measure: what every accuracy of it is.
    """

    schema: int = field(default=1, metadata=VERSION)
    run: str
    created: str
    recipe_key: str
    data: str
    model: str
    classes: tuple[str, ...]
    test_samples: int
    rows: tuple[Row, ...]
    selected: str | None
    notes: tuple[str, ...]
    hosts: dict[str, dict[str, Any]]
    versions: dict[str, str]
    model_options: dict[str, Any] = field(default_factory=dict)
    warning: str = field(default="", metadata=LEFT_OUT)

    def __post_init__(self) -> None:
        names = [row.id for row in self.rows]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"rows: two are called {twice[0]!r}")
        if self.selected is not None and self.selected not in names:
            raise ValueError(f"selected: {self.selected!r} is none of its rows")
