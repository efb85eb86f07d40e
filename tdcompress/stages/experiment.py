"""One resolved combination of a recipe: every section as the settings dataclass that owns its keys."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from tdcompress.codec import encode
from tdcompress.data.base import DataSettings
from tdcompress.data.registry import DATASETS
from tdcompress.errors import UserError
from tdcompress.methods.base import Granularity, MethodSettings
from tdcompress.methods.none import NoneSettings
from tdcompress.methods.registry import METHODS
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.models.base import ModelSettings
from tdcompress.models.initialise import DIRAC
from tdcompress.models.registry import settings_type
from tdcompress.recipe import Recipe
from tdcompress.sparsity.shares import USUAL, Shares
from tdcompress.train.distill import DistillSettings
from tdcompress.train.optim import LrSchedule
from tdcompress.train.settings import TrainSettings

Values = Literal["float32", "float16", "int8"]


@dataclass(frozen=True, kw_only=True)
class PruneSettings:
    """The [prune] table: what is set to zero after training.

    Attributes:
        fraction: pruned share, 0..1, of the weights or units, split as ``shares`` says; or
        keep_per_filter: weights that stay in each filter.
        granularity: None = the training's.
        scope: None = the training's.
        unit: None = the training's.
        shares: how the fraction is split, see [sparsity]; None = the training's where it is of the same granularity, else
            "filter" for weights and "layer" for units.
        exclude: names of layers that stay dense, besides those that the model declares; None = the training's.
        align: kept units are rounded up to a multiple of this; onnxruntime computes channels in blocks of 16.
        evaluation: "plain", or "released": as the released code evaluates, all candidates of the training (the bottom gamma
            share) are pruned too.
        recalibrate: so many training images, drawn from the seed and not augmented, re-estimate the mean and variance of every
            BatchNorm layer after pruning; all where there are fewer; 0 = the training's stay.
    """

    fraction: float | None = None
    keep_per_filter: int | None = None
    granularity: Granularity | None = None
    scope: Literal["layer", "group"] | None = None
    unit: Literal["whole", "filter"] | None = None
    shares: Shares | None = None
    exclude: tuple[str, ...] | None = None
    align: int = 1
    evaluation: Literal["plain", "released"] = "plain"
    recalibrate: int = 0

    def __post_init__(self) -> None:
        if self.recalibrate < 0:
            raise ValueError(f"recalibrate: {self.recalibrate} images is out of range, 0 or more")
        if (self.fraction is None) == (self.keep_per_filter is None):
            raise ValueError("fraction: give either fraction or keep_per_filter")
        if self.fraction is not None and not 0 <= self.fraction < 1:
            raise ValueError(f"fraction: {self.fraction} is out of range, 0 <= fraction < 1")
        if self.keep_per_filter is not None and self.keep_per_filter < 1:
            raise ValueError(f"keep_per_filter: {self.keep_per_filter} is out of range, 1 or more")
        if self.keep_per_filter is not None and self.shares is not None:
            raise ValueError("shares: they split a fraction; keep_per_filter says how many weights of each filter stay")
        if self.align < 1:
            raise ValueError(f"align: {self.align} is out of range, 1 or more")


@dataclass(frozen=True, kw_only=True)
class ShrinkSettings:
    """The [shrink] table: how a network that lost units is made smaller.

    Attributes:
        align: of the channels that could go, so many stay that widths are multiples of this, or what they were; onnxruntime
            computes channels in blocks of 16.
    """

    align: int = 1

    def __post_init__(self) -> None:
        if self.align < 1:
            raise ValueError(f"align: {self.align} is out of range, 1 or more")


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """The [finetune] table: training goes on after pruning or shrinking. What is None is as in [train].

    Attributes:
        epochs: 0 = no fine-tuning.
        lr: learning rate.
        lr_schedule: what it is multiplied by, over the steps of the fine-tuning; [train]'s is of the training.
        after: "prune": the full network with its masks frozen, so that zeros stay zeros and shrinking comes last; or, for units,
            "shrink": every weight of the narrow network; shrinking is certified before that.
    """

    epochs: int = 0
    lr: float | None = None
    lr_schedule: LrSchedule = field(default_factory=LrSchedule)
    after: Literal["prune", "shrink"] = "prune"

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"epochs: {self.epochs} is out of range, 0 or more")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ValueError(f"lr: {self.lr} is out of range, above 0")


@dataclass(frozen=True, kw_only=True)
class SelectSettings:
    """Which row becomes model.onnx.

    Attributes:
        max_accuracy_drop: below the dense network's accuracy, 0..1.
        smallest: of the rows that remain, the one with the smallest of this.
    """

    max_accuracy_drop: float = 0.01
    smallest: Literal["onnx_bytes", "latency", "parameters_nonzero"] = "onnx_bytes"

    def __post_init__(self) -> None:
        if not 0 <= self.max_accuracy_drop <= 1:
            raise ValueError(f"max_accuracy_drop: {self.max_accuracy_drop} is out of range, 0 to 1")


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """The [export] table.

    Attributes:
        pack: "auto" packs zeros where that makes a file smaller: pruned weights, dead channels that shrinking kept; "never"
            keeps every tensor dense.
        prefer: "size" also allows encodings that load more slowly.
        input: "float32" NCHW, preprocessed by the caller; or "uint8" NHWC images, preprocessed inside the graph.
        values: number formats of the files; each gives a row.
        int8_range: "portable": 7-bit weights, whose sums come out the same on every processor; "full": 8-bit weights, for files
            that will run only on ARM or on x86 with VNNI (others cut large sums, and `verify` and `bench` say so).
        select: which row becomes model.onnx.
    """

    pack: Literal["auto", "never"] = "auto"
    prefer: Literal["speed", "size"] = "speed"
    input: Literal["float32", "uint8"] = "float32"
    values: tuple[Values, ...] = ("float32",)
    int8_range: Literal["portable", "full"] = "portable"
    select: SelectSettings = SelectSettings()

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) != len(self.values):
            raise ValueError(f"values: {list(self.values)}: at least one, none twice")


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """The [bench] table.

    Attributes:
        budget: "quick" or "full"; "none" measures nothing.
        threads: of a session; 0 = all cores. Each is measured.
        batch: examples of a call. Each is measured.
        backend: what runs the files. Each is measured against dense.onnx under onnxruntime.
        provider: onnxruntime's execution provider.
    """

    budget: Literal["none", "quick", "full"] = "quick"
    threads: tuple[int, ...] = (1,)
    batch: tuple[int, ...] = (1,)
    backend: tuple[str, ...] = ("onnxruntime",)
    provider: str = "CPUExecutionProvider"

    def __post_init__(self) -> None:
        for key, least in (("threads", 0), ("batch", 1)):
            values = getattr(self, key)
            if not values or min(values) < least:
                raise ValueError(f"{key}: {list(values)}: at least one number of {least} or above")
        if not self.backend:
            raise ValueError("backend: at least one")


@dataclass(frozen=True, kw_only=True)
class AnalyseSettings:
    """The [analyse] table: where a recipe has it, every row's pruning is also analysed as in section 5.1.

    Attributes:
        bins: rows of the dependence matrix; neighbours in the order of magnitude are summed.
        batch: test samples at once.
    """

    bins: int = 256
    batch: int = 1000

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ValueError(f"bins: {self.bins} is out of range, 2 or more")
        if self.batch < 1:
            raise ValueError(f"batch: {self.batch} is out of range, 1 or more")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One combination of a recipe, resolved: nothing in it is left open.

    Attributes:
        model_name: as written; "torchvision/resnet18" is a name too.
        init: a safetensors file that the weights start from, or "dirac".
        distill: None also where there is nothing to learn from: in the untargeted training itself.
    """

    seed: int
    data: DataSettings
    model_name: str
    model: ModelSettings
    init: str | None
    method: MethodSettings
    train: TrainSettings
    prune: PruneSettings
    finetune: FinetuneSettings
    shrink: ShrinkSettings
    export: ExportSettings
    bench: BenchSettings
    analyse: AnalyseSettings | None = None
    distill: DistillSettings | None = None

    @property
    def granularity(self) -> Granularity:
        """What is pruned."""
        return self.prune.granularity or self.method.granularity

    @property
    def scope(self) -> Literal["layer", "group"]:
        """Inside what units are ranked when pruned."""
        return self.prune.scope or self.method.scope

    @property
    def shares(self) -> Shares:
        """How the pruned share is split; weights that are kept by count have the same of every filter."""
        if self.prune.keep_per_filter is not None:
            return "filter"
        trained = self.method.shares if self.method.granularity == self.granularity else None
        return self.prune.shares or trained or USUAL[self.granularity]

    @property
    def exclude(self) -> tuple[str, ...]:
        """Layers that are not pruned, besides those that the model declares."""
        return self.method.exclude if self.prune.exclude is None else self.prune.exclude

    @property
    def teacher(self) -> "Experiment":
        """The untargeted training that this one learns from."""
        return replace(self, method=NoneSettings(), distill=None)

    def trains_on(self, after: Literal["prune", "shrink"]) -> bool:
        """Whether there is a fine-tuning after this stage."""
        return self.finetune.epochs > 0 and self.finetune.after == after

    @property
    def options(self) -> dict[str, Any]:
        """The method's own keys, without those that all methods have; L1's strength and the shares where they are given."""
        shared = {field.name for field in fields(MethodSettings)} | self.method.silent
        own = {key: value for key, value in encode(self.method).items() if key not in shared and value is not None}
        given = {"l1": self.method.l1 or None, "shares": self.method.shares}
        return own | {key: value for key, value in given.items() if value is not None}


def resolve(recipe: Recipe) -> Experiment:
    """Bind every section to its owner, with defaults.

    Raises:
        RecipeError: anything that is not right, with file, line and key.
    """
    data_type, data_values = recipe.choose(DATASETS, "data", "name")
    method_type, method_values = recipe.choose(METHODS, "sparsity", "method")
    model_name, model_type, model_values, init = _model(recipe)
    train = recipe.bind(TrainSettings, "train")
    method = recipe.bind(method_type, "sparsity", method_values)
    prune = recipe.bind(PruneSettings, "prune")
    try:
        method = method.for_training(train.epochs)
    except ValueError as error:
        key = str(error).split(":")[0]
        raise recipe.source.error(f"sparsity.{key}", f"sparsity.{error}") from None
    distill = recipe.bind(DistillSettings, "distill") if "distill" in recipe.values else None
    experiment = Experiment(
        seed=recipe.seed,
        data=recipe.bind(data_type, "data", data_values),
        model_name=model_name,
        model=recipe.bind(model_type, "model", model_values),
        init=init,
        method=method,
        train=train,
        prune=prune,
        finetune=recipe.bind(FinetuneSettings, "finetune"),
        shrink=recipe.bind(ShrinkSettings, "shrink"),
        export=recipe.bind(ExportSettings, "export"),
        bench=recipe.bind(BenchSettings, "bench"),
        analyse=recipe.bind(AnalyseSettings, "analyse") if "analyse" in recipe.values else None,
        distill=distill if method.name != NoneSettings.name else None,
    )
    if experiment.analyse is not None and prune.fraction is None:
        raise recipe.source.error("prune", "prune.fraction: [analyse] needs the share that is pruned")
    if experiment.analyse is not None and experiment.granularity == "unit":
        raise recipe.source.error("prune.granularity", 'prune.granularity: [analyse] is of single weights; set "weight"')
    if experiment.granularity == "unit" and prune.keep_per_filter is not None:
        problem = 'prune.keep_per_filter: it counts weights of a filter; with granularity = "unit" give fraction'
        raise recipe.source.error("prune.keep_per_filter", problem)
    if experiment.granularity == "unit" and prune.shares == "filter":
        problem = 'prune.shares: "filter" is a share of the weights of each filter; units have "layer", "erk" or "global"'
        raise recipe.source.error("prune.shares", problem)
    if experiment.granularity == "weight" and experiment.finetune.after == "shrink":
        problem = 'finetune.after: weights are pruned here, and only units are shrunk; "prune" trains on with the zeros frozen'
        raise recipe.source.error("finetune.after", problem)
    if prune.evaluation == "released" and (reason := _no_candidates(experiment)):
        raise recipe.source.error("prune.evaluation", f'prune.evaluation: "released" prunes {reason}; take "plain"')
    return experiment


def _no_candidates(experiment: Experiment) -> str | None:
    """Why a training's candidates cannot be pruned as the released code's evaluation does, or None where they can."""
    method = experiment.method
    if not isinstance(method, TargetedSettings) or method.gamma is None:
        return f"the training's candidates, its bottom gamma share, and this {method.name} has no gamma"
    if experiment.prune.fraction is None:
        return "the larger one of fraction and gamma, and keep_per_filter is no share"
    if experiment.granularity != method.granularity:
        return f"the training's candidates, which are {method.granularity}s, and here {experiment.granularity}s are pruned"
    if experiment.shares != method.split:
        return f'the training\'s candidates, split by "{method.split}", and here shares = "{experiment.shares}"'
    return None


def _model(recipe: Recipe) -> tuple[str, type[ModelSettings], dict[str, Any], str | None]:
    values = recipe.section("model")
    name, init = values.pop("name", None), values.pop("init", None)
    if not isinstance(name, str):
        raise recipe.source.error("model", "model.name is missing: the name of a network")
    if init is not None and init != DIRAC and (not isinstance(init, str) or not Path(init).is_file()):
        raise recipe.source.error("model.init", f'model.init: {init!r} is not a file, nor "{DIRAC}"')
    try:
        return name, settings_type(name), values, init
    except UserError as error:
        raise recipe.source.error("model.name", f"model.name: {error}") from None
