"""What rows are called: labels that people read, ids that name files, and what tells rows of one run apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from tdcompress.codec import encode
from tdcompress.sparsity.shares import USUAL
from tdcompress.stages.experiment import Experiment, FinetuneSettings, PruneSettings, ShrinkSettings

# What a row of the report says of itself by other means.
_TOLD = (
    "train.epochs",
    "prune.fraction",
    "prune.keep_per_filter",
    "prune.granularity",
    "prune.scope",
    "prune.unit",
    "prune.shares",
    "prune.evaluation",
    "finetune.epochs",
    "finetune.after",
)
_STEPS = {"prune": PruneSettings, "finetune": FinetuneSettings, "shrink": ShrinkSettings}


def method_label(experiment: Experiment) -> str:
    """How people and the papers write a method: "targeted(alpha=0.66,gamma=0.75)"."""
    inside = ",".join(f"{key}={value}" for key, value in sorted(telling_options(experiment).items()))
    return f"{experiment.method.name}({inside})" if inside else experiment.method.name


def share_label(experiment: Experiment) -> str:
    """The pruned share: "0.9", or "keep3" for Xtreme."""
    keep = experiment.prune.keep_per_filter
    return f"keep{keep}" if keep is not None else f"{experiment.prune.fraction:g}"


def telling_options(experiment: Experiment) -> dict[str, Any]:
    """The method's own keys that name a training, and those that are not at their defaults."""
    defaults = {field.name: field.default for field in fields(experiment.method) if field.default is not MISSING}
    headline = experiment.method.headline
    return {key: value for key, value in experiment.options.items() if key in headline or value != encode(defaults.get(key))}


def pruned_otherwise(experiment: Experiment) -> bool:
    """Whether the pruned share is split otherwise than the method's name tells: than in training, or than is usual."""
    trained = experiment.method.shares if experiment.method.granularity == experiment.granularity else None
    counted = experiment.prune.keep_per_filter is not None
    return not counted and experiment.shares != (trained or USUAL[experiment.granularity])


def differences(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    """Of each combination, the settings that not all have alike and that a row's other columns do not tell.

    Returns:
        For each: dotted key of the recipe -> value as JSON, such as "train.optimizer.lr" -> 0.1; without what is at its
        default in [prune], [finetune] and [shrink].
    """
    settings = [_settings(experiment) for experiment in experiments]
    varying = {key for own in settings for key, value in own.items() if any(other.get(key) != value for other in settings)}
    return [
        {key: value for key, value in own.items() if key in varying and not (key in _OFF and value == _OFF[key])}
        for own in settings
    ]


def _settings(experiment: Experiment) -> dict[str, Any]:
    tables = {name: encode(getattr(experiment, name)) for name in ("train", "prune", "finetune", "shrink")}
    tables["distill"] = encode(experiment.distill) if experiment.distill else {}
    tables["prune"]["exclude"] = list(experiment.exclude)
    tables["finetune"] = tables["finetune"] if experiment.finetune.epochs else {}
    return {key: value for key, value in _flat(tables) if key not in _TOLD}


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _default(field: "Field[Any]") -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


# A row does not speak of what these steps leave undone; of how it was trained it speaks whatever the default is.
_OFF = dict(_flat({table: {field.name: encode(_default(field)) for field in fields(step)} for table, step in _STEPS.items()}))
_OFF |= {"prune.exclude": []}


def row_ids(experiments: Sequence[Experiment]) -> list[str]:
    """Short names, unique in a run, that can name files: the method, what differs between rows, the pruned share."""
    traits = [_traits(*pair) for pair in zip(experiments, differences(experiments), strict=True)]
    ids = []
    for experiment, trait in zip(experiments, traits, strict=True):
        same = [t for e, t in zip(experiments, traits, strict=True) if e.method.name == experiment.method.name]
        telling = [key for key in trait if len({str(other.get(key)) for other in same}) > 1]
        words = [word for key in telling if (word := _word(key, trait[key]))]
        ids.append("-".join([experiment.method.name, *words, share_label(experiment)]).replace("/", "_"))
    seen: dict[str, int] = {}
    unique = []
    for name in ids:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return unique


def _traits(experiment: Experiment, differs: Mapping[str, Any]) -> dict[str, Any]:
    """What can tell rows of one method apart, besides the pruned share."""
    prune, method = experiment.prune, experiment.method
    matched = method.name == "none" or method.granularity == experiment.granularity
    traits = {
        "granularity": experiment.granularity,
        "trained on": "" if matched else f"on-{method.granularity}s",
        "scope": experiment.scope,
        "unit": prune.unit or method.unit,
        "pruned by": f"by-{experiment.shares}" if pruned_otherwise(experiment) else "",
        "exclude": _spared(experiment.exclude),
        "align": prune.align,
        "shrink-align": experiment.shrink.align,
        "evaluation": prune.evaluation,
        "recalibrate": prune.recalibrate or None,
        "distill": experiment.distill.weight if experiment.distill else None,
        "temperature": experiment.distill.temperature if experiment.distill else None,
        "model": experiment.model_name,
        "epochs": experiment.train.epochs,
        "finetune": experiment.finetune.epochs,
        "finetune-after": f"after-{experiment.finetune.after}" if experiment.finetune.epochs else "",
        "seed": experiment.seed,
    }
    others = {key.rpartition(".")[2]: value for key, value in differs.items() if key.startswith("train.")}
    return traits | others | telling_options(experiment)


def _spared(exclude: Sequence[str]) -> str:
    """Layers that stay dense, in a row's name: by name where these are short."""
    names = "-".join(exclude)
    return "" if not exclude else f"without-{names}" if len(names) <= 40 else f"without-{len(exclude)}-layers"


def _word(key: str, value: Any) -> str:
    """A trait in a row's name: words speak for themselves, numbers need their key; lists and what is off or open say nothing."""
    if value is None or isinstance(value, bool | list):
        return key if value is True else ""
    if isinstance(value, str):
        return value
    return f"{key}{'_' if key[-1].isdigit() else ''}{value:g}"
