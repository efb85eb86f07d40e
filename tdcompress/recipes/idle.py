"""Keys of a recipe that do nothing, since another key chose otherwise: what is written has an effect, or is refused."""

from collections.abc import Iterator, Mapping, Set
from typing import Any

from tdcompress.data.augment import Augmentation
from tdcompress.data.images import ImageSettings
from tdcompress.methods.none import NoneSettings
from tdcompress.recipes.experiment import Experiment


def without_keys(values: Mapping[str, Any], keys: Set[str], table: str = "") -> dict[str, Any]:
    """The values of a table, without those that are None, and without some keys.

    Args:
        values: nested.
        keys: dotted.
        table: what the values are below, with a dot at the end.
    """
    said = {key: value for key, value in values.items() if value is not None and f"{table}{key}" not in keys}
    return {key: without_keys(value, keys, f"{table}{key}.") if isinstance(value, dict) else value for key, value in said.items()}


def idle_keys(experiment: Experiment) -> dict[str, str]:
    """What has no effect in a combination, whether it is written or not.

    Returns:
        Dotted key, or table -> what it would need, in the words of a recipe.
    """
    found = _of_method, _of_units, _of_pruning, _of_training, _of_export, _of_bench
    return dict(each for keys in found for each in keys(experiment))


def _of_method(experiment: Experiment) -> Iterator[tuple[str, str]]:
    method, prune = experiment.method, experiment.prune
    for key, needed in method.idle.items():
        yield f"sparsity.{key}", f"sparsity.{needed}"
    same = experiment.pruning.granularity == method.granularity
    if not method.splits and not (same and prune.shares is None and prune.keep_per_filter is None):
        yield "sparsity.shares", "a method that drops by shares, or a [prune] that leaves them open"
    if method.name == NoneSettings.name:
        yield "distill", f'another sparsity.method than "{method.name}"'


def _of_units(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Weights have no scope, are no units, and leave nothing to align."""
    pruned = experiment.pruning.granularity == "unit"
    for key in ("scope", "unit"):
        taken_over = pruned and getattr(experiment.prune, key) is None
        if experiment.method.granularity != "unit" and not taken_over:
            yield f"sparsity.{key}", 'sparsity.granularity = "unit"'
    if not pruned:
        for key in ("prune.scope", "prune.unit", "prune.align", "shrink.align"):
            yield key, 'prune.granularity = "unit"'


def _of_pruning(experiment: Experiment) -> Iterator[tuple[str, str]]:
    prune, data = experiment.prune, experiment.data
    if not prune.recalibrate:
        yield "prune.recalibrate_on", "prune.recalibrate above 0"
    elif prune.recalibrate_on == "augmented" and isinstance(data, ImageSettings) and data.augmentation() == Augmentation():
        yield "prune.recalibrate_on", "images that are augmented, by keys of [data] such as data.crop_padding"


def _of_training(experiment: Experiment) -> Iterator[tuple[str, str]]:
    train, finetune = experiment.train, experiment.finetune
    if train.average == "none":
        yield "train.average_share", 'train.average = "ema" or "last"'
    if train.average != "ema":
        yield "train.average_decay", 'train.average = "ema"'
    if not finetune.epochs:
        for key in ("lr", "lr_schedule", "after"):
            yield f"finetune.{key}", "finetune.epochs above 0"
    for table, schedule in (("train", train.lr_schedule), ("finetune", finetune.lr_schedule if finetune.epochs else None)):
        if schedule is not None and schedule.name != "piecewise":
            yield f"{table}.lr_schedule.unit", f'{table}.lr_schedule.name = "piecewise"'


def _of_export(experiment: Experiment) -> Iterator[tuple[str, str]]:
    if "int8" not in experiment.export.values:
        yield "export.int8_range", '"int8" among export.values'
    if experiment.export.pack == "never":
        yield "export.prefer", 'export.pack = "auto"'


def _of_bench(experiment: Experiment) -> Iterator[tuple[str, str]]:
    if experiment.bench.budget == "none":
        for key in ("threads", "batch", "backend", "provider"):
            yield f"bench.{key}", 'bench.budget = "quick" or "full"'
