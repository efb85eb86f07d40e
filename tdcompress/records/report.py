"""A report, its rows, and how the network of each was made."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from tdcompress.codec import LEFT_OUT, VERSION
from tdcompress.records.latency import RowLatency
from tdcompress.records.measures import FileFigure, Measured
from tdcompress.records.stages import LayerCount, PrunedCount, ShrinkRecord, UnitCount, Values


@dataclass(frozen=True, kw_only=True)
class RowConfig:
    """How the network of a row was made: what tells the rows of a report apart, made once from the recipe.

    A field that tells a key of the recipe names it, as ``key``.

    Attributes:
        case: what the recipe calls this way of making a network; empty where it has no name for it.
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

    case: str = field(default="", metadata=LEFT_OUT)
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
        sparsity_trained: likewise among the prunable weights of the network as it was trained; None where nobody counted.
        onnx_bytes: of the file as it lies in the run's folder.
        layers: how much of each prunable matrix was kept, before shrinking.
        pruned: how many weights or units pruning was to take, and took.
        units: where units were pruned: how many of each layer were kept, before shrinking.
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
    pruned: PrunedCount | None = field(default=None, metadata=LEFT_OUT)
    units: tuple[UnitCount, ...] = ()
    shrunk: ShrinkRecord | None = None
    accuracy_finetuned: float | None = None
    accuracy_before: float | None = None
    how: str = ""
    figures: tuple[FileFigure, ...] = ()
    unlike_torch: int | None = None
    kept_float32: dict[str, str] = field(default_factory=dict)
    sparsity_trained: float | None = None

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
    "sparsity_trained",
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
