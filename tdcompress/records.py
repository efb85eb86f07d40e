"""Frozen typed results that stages hand on, and their JSON round trip.

A record is data: no behaviour, no paths, no tensors. ``encode`` and ``decode`` turn any frozen dataclass made of the types below
into JSON values and back; recipes are read by the same ``decode``, so a wrong type has the same message everywhere.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")
Json = Any


def encode(value: Any) -> Json:
    """JSON values of a record: dataclasses become objects, tuples become lists.

    Raises:
        TypeError: a value that JSON has no word for.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} cannot be written as JSON")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


def decode(kind: type[T], value: Json, where: str = "") -> T:
    """Read a record, or a part of one, from JSON (or TOML) values.

    Args:
        kind: the type wanted: a dataclass, str, int, float, bool, None, Literal, a union, tuple, dict, or Any.
        value: what was read.
        where: dotted path of the value, for messages.

    Raises:
        ValueError: "path: what is wrong", also for unknown and missing fields.
    """
    result: T = _decode(kind, value, where)
    return result


def _decode(kind: Any, value: Json, where: str) -> Any:
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is Literal:
        if not any(type(value) is type(option) and value == option for option in options):
            raise ValueError(f"{where}: {value!r} is none of {', '.join(repr(option) for option in options)}")
        return value
    if origin in (Union, types.UnionType):
        return _decode_union(options, value, where)
    if origin is tuple:
        return _decode_tuple(options, value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: a table is needed, not {value!r}")
        return {key: _decode(options[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_dataclass(kind, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise ValueError(f"{where}: a whole number of {len(str(value))} digits is out of range") from None
    if kind is type(None):
        kind = types.NoneType
    if type(value) is not kind:
        raise ValueError(f"{where}: {kind.__name__} needed, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value} is not a finite number")
    return value


def _decode_union(options: tuple[Any, ...], value: Json, where: str) -> Any:
    if value is None and types.NoneType in options:
        return None
    problems = []
    for option in options:
        if option is types.NoneType:
            continue
        try:
            return _decode(option, value, where)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError(problems[0] if len(problems) == 1 else f"{where}: " + "; or ".join(problems))


def _decode_tuple(options: tuple[Any, ...], value: Json, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: a list is needed, not {value!r}")
    if len(options) == 2 and options[1] is Ellipsis:
        options = (options[0],) * len(value)
    if len(options) != len(value):
        raise ValueError(f"{where}: {len(options)} values are needed, not {len(value)}")
    return tuple(_decode(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(options, value, strict=True)))


def _decode_dataclass(kind: type[Any], value: Json, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: a table is needed, not {value!r}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for key in value:
        if key not in fields:
            raise UnknownKeyError(f"{where}.{key}".lstrip("."), tuple(fields))
    given = {key: _decode(hints[key], item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    for name, field in fields.items():
        if name not in given and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{f'{where}.{name}'.lstrip('.')}: missing")
    try:
        return kind(**given)
    except UnknownKeyError:
        raise
    except ValueError as error:  # a dataclass's own check: "key: what is wrong"
        raise ValueError(f"{where}.{error}".lstrip(".")) from None


class UnknownKeyError(ValueError):
    """A field that the record does not have.

    Args:
        path: dotted path of the unknown key.
        known: the keys that exist at that place.
    """

    def __init__(self, path: str, known: tuple[str, ...]) -> None:
        super().__init__(f"{path}: unknown key; known are {', '.join(known)}")
        self.path = path
        self.known = known


@dataclass(frozen=True, kw_only=True)
class LayerCount:
    """How much of one prunable weight matrix is kept."""

    name: str
    shape: tuple[int, ...]
    total: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class TrainRecord:
    """One training. ``accuracy`` (0..1) is that of the deployed, unpruned network on the test set."""

    method: str
    options: dict[str, Any]
    granularity: Literal["weight", "unit"]
    epochs: int
    accuracy: float
    seconds: float
    images_per_second: float
    device: str


@dataclass(frozen=True, kw_only=True)
class PruneRecord:
    """One pruning. Sparsity is a share of zeros: of the prunable weights, and of all the network's parameters."""

    layers: tuple[LayerCount, ...]
    accuracy: float
    parameters_total: int
    parameters_nonzero: int
    sparsity_prunable: float
    sparsity_model: float


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
class ShrinkRecord:
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
class FinetuneRecord:
    """A shrunk network that trained on. ``accuracy`` (0..1) is its own, on the test set."""

    epochs: int
    accuracy: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class AnalysisRecord:
    """What pruning a trained network is expected to do to the loss, to second order (section 5.1).

    Attributes:
        options: the method's own parameters.
        fraction: pruned share.
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
class StoreRecord:
    """Weights as scipy CSR on disk, read back bit-exactly and measured."""

    stored_bytes: int
    dense_bytes: int
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """One ONNX file. ``bound_bytes`` is what an ideal code of the kept weights and their positions would take."""

    opset: int
    values: Literal["float32", "float16", "int8"]
    onnx_bytes: int
    bound_bytes: float
    encodings: dict[str, int]
    max_error: float
    max_output: float
    samples: int
    accuracy: float


Claim = Literal["faster", "slower", "none"]


@dataclass(frozen=True, kw_only=True)
class RowLatency:
    """Latency of one file on one host; ratio = time / time of the dense network, below 1 is faster, with a 95 % interval."""

    host: str
    backend: str
    provider: str
    threads: int
    batch: int
    p50_ns: float
    ratio_to_dense: float
    ratio_low: float
    ratio_high: float
    claim: Claim
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class BenchRecord:
    """Latencies by row id, and the facts of the hosts they were measured on."""

    rows: dict[str, tuple[RowLatency, ...]]
    hosts: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a report: one network at one pruning, as it is deployed.

    Attributes:
        id: short and unique in the run: "targeted-0.9".
        options: the method's own parameters.
        epochs: of the training and of fine-tuning.
        accuracy_dense: of the same training, unpruned.
        accuracy_masked: pruned, and fine-tuned where that comes before shrinking.
        accuracy_finetuned: of a shrunk network that trained on; None where none did.
        values: number format of the file's weights.
        selectable: whether it may become ``model.onnx``.
        why: what can make this row faster than the dense file, or why nothing can.
        trained_granularity: what was dropped in training where it is not what was pruned, else None.
        unit: what a pruned unit is.
        evaluation: "released" = all candidates of the training were pruned too.
        shrunk: what shrinking did, layer by layer; the counts of parameters and zeros are of the network before.
        finetune_epochs: those of ``epochs`` that came after pruning or shrinking.
        finetune_after: after which of them; None where there was no fine-tuning.
        differs: settings in which the run's rows differ and that nothing above tells: dotted key of the recipe -> value.
    """

    id: str
    method: str
    options: dict[str, Any]
    granularity: Literal["weight", "unit"]
    fraction: float | None
    keep_per_filter: int | None
    scope: Literal["layer", "group"]
    seed: int
    epochs: int
    train_seconds: float
    device: str
    accuracy_dense: float
    accuracy_masked: float
    accuracy_shrunk: float | None
    accuracy_stored: float | None
    accuracy_onnx: float
    parameters_total: int
    parameters_nonzero: int
    sparsity_prunable: float
    sparsity_model: float
    macs: int
    values: Literal["float32", "float16", "int8"]
    onnx_file: str
    onnx_bytes: int
    dense_onnx_bytes: int
    bound_bytes: float
    stored_bytes: int | None
    selectable: bool
    why: str
    latency: tuple[RowLatency, ...] = ()
    trained_granularity: Literal["weight", "unit"] | None = None
    unit: Literal["whole", "filter"] = "whole"
    evaluation: Literal["plain", "released"] = "plain"
    shrunk: ShrinkRecord | None = None
    accuracy_finetuned: float | None = None
    finetune_epochs: int = 0
    finetune_after: Literal["prune", "shrink"] | None = None
    differs: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that report.json holds.

    Attributes:
        rows: one per deployed network.
        selected: id of the row that became model.onnx, or None with the reason in ``notes``.
        hosts: facts of each host that latencies were measured on, by its id.
        versions: python, torch, onnx, onnxruntime, ...
        model_options: the network's own keys that are not at their defaults.
        test_samples: size of the test set that every accuracy was measured on.
    """

    schema: int = 1
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
    model_options: dict[str, Any] = dataclasses.field(default_factory=dict)
