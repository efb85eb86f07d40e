"""Keys of a recipe that do nothing, since another key chose otherwise: what is written has an effect, or is refused."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tdcompress.methods.none import NoneSettings
from tdcompress.recipes.experiment import Experiment
from tdcompress.recipes.source import Recipe


def require_effect(variants: Sequence[Recipe], experiments: Sequence[Experiment]) -> None:
    """Refuse what a recipe says to no effect in all of its combinations.

    A key of the base, of a list or of a case has to have one in some combination that takes it from there. So a key that only
    some combinations use may stand where all of them have it.

    Args:
        variants: the combinations as written.
        experiments: each of them, resolved.

    Raises:
        RecipeError: names the key, what it would need, and other such keys.
    """
    lost: dict[tuple[str, int | None], tuple[Recipe, str, str]] = {}
    used = set[tuple[str, int | None]]()
    idle = [idle_keys(experiment) for experiment in experiments]
    for key in dict.fromkeys(key for keys in idle for key in keys):
        for variant, keys in zip(variants, idle, strict=True):
            written = _first_written(variant.values, key)
            if written is None:
                continue
            place = key, variant.source.line(written)
            if key in keys:
                lost.setdefault(place, (variant, written, keys[key]))
            else:
                used.add(place)
    refused = {place[0]: found for place, found in lost.items() if place not in used}
    for key, (variant, written, needed) in refused.items():
        others = ", ".join(other for other in refused if other != key)
        likewise = f" (likewise {others})" if others else ""
        raise variant.source.error(
            written, f"{written}: it does nothing without {needed}; set that, or leave {key} out{likewise}"
        )


def idle_keys(experiment: Experiment) -> dict[str, str]:
    """What has no effect in a combination, whether it is written or not.

    Returns:
        Dotted key, or table -> what it would need, in the words of a recipe.
    """
    return dict((*_of_method(experiment), *_of_units(experiment), *_of_training(experiment), *_of_export(experiment)))


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


def _first_written(values: Mapping[str, Any], key: str) -> str | None:
    """The dotted key itself, or the first one below it, as far as the recipe has any."""
    found: Any = values
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    while isinstance(found, Mapping) and found:
        below = next(iter(found))
        key, found = f"{key}.{below}", found[below]
    return key
