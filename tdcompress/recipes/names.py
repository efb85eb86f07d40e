"""What rows are called: labels that people read, ids that name files, and what tells rows of one run apart."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import MISSING, fields
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from tdcompress.codec import encode
from tdcompress.data.registry import DATASETS
from tdcompress.methods.base import MethodSettings
from tdcompress.recipes.experiment import Experiment, table_types
from tdcompress.recipes.idle import idle_keys
from tdcompress.records.report import RowConfig
from tdcompress.records.stages import Values
from tdcompress.report.text import below_table, named_method, plural
from tdcompress.stages.prune import Share
from tdcompress.steps import step_tables
from tdcompress.train.settings import TrainSettings

# What a row says of itself by fields of its own.
_TOLD = frozenset(field.metadata["key"] for field in fields(RowConfig) if "key" in field.metadata)


def row_config(experiment: Experiment, values: Values, differs: Mapping[str, Any]) -> RowConfig:
    """What tells a row apart.

    Args:
        experiment: its combination.
        values: number format of its file.
        differs: see ``differences``.
    """
    method, pruning, finetune = experiment.method, experiment.pruning, experiment.finetune
    return RowConfig(
        case=experiment.case,
        method=method.name,
        options=method.options,
        granularity=pruning.granularity,
        trained_granularity=None if method.granularity == pruning.granularity else method.granularity,
        fraction=pruning.fraction,
        keep_per_filter=pruning.keep_per_filter,
        scope=pruning.scope,
        unit=pruning.unit,
        shares=pruning.shares if pruning.shares != experiment.usual_shares else None,
        evaluation=pruning.evaluation,
        seed=experiment.seed,
        epochs=experiment.train.epochs + finetune.epochs,
        finetune_epochs=finetune.epochs,
        finetune_after=finetune.after if finetune.epochs else None,
        values=values,
        differs=dict(differs),
    )


def method_label(method: MethodSettings) -> str:
    """How people and the papers write a method: "targeted(alpha=0.66,gamma=0.75)"."""
    return named_method(method.name, telling_options(method))


def share_label(pruning: Share) -> str:
    """The pruned share: "0.9", or "keep3" for Xtreme."""
    keep = pruning.keep_per_filter
    return f"keep{keep}" if keep is not None else f"{pruning.fraction:g}"


def telling_options(method: MethodSettings) -> dict[str, Any]:
    """The method's own keys that name a training, and those that are not at their defaults."""
    defaults = {field.name: field.default for field in fields(method) if field.default is not MISSING}
    return {key: value for key, value in method.options.items() if key in method.headline or value != encode(defaults.get(key))}


def differences(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    """Of each combination, the settings that a row's other columns do not tell.

    Returns:
        For each: dotted key of the recipe -> value as JSON, such as "train.optimizer.lr" -> 0.1. It has the keys in which some
        differ, and those of [prune], [finetune] and [shrink] that are not at their defaults.
    """
    taken, off = _of_taken_steps(experiments, step_tables().keys()), _off()
    varying = _varying(taken)
    return [
        {key: value for key, value in own.items() if (value != off[key] if key in off else key in varying)}
        for own in _in_force(experiments, taken)
    ]


def _of_taken_steps(experiments: Sequence[Experiment], tables: Set[str]) -> list[dict[str, Any]]:
    """What each combination sets, without the tables of steps that it does not take."""
    taken = []
    for experiment in experiments:
        skipped = tables - {step.stage for step in experiment.taken.values()}
        taken.append({key: value for key, value in _settings(experiment).items() if key.split(".")[0] not in skipped})
    return taken


def _in_force(experiments: Sequence[Experiment], settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each combination sets, without what has no effect in it."""
    idle = [idle_keys(experiment) for experiment in experiments]
    return [{key: value for key, value in own.items() if key not in none} for own, none in zip(settings, idle, strict=True)]


def _varying(settings: Sequence[Mapping[str, Any]]) -> set[str]:
    """Keys that not all have alike."""
    return {key for own in settings for key, value in own.items() if any(other.get(key) != value for other in settings)}


@lru_cache(maxsize=1024)  # several ask for each of a sweep
def _settings(experiment: Experiment) -> Mapping[str, Any]:
    """What a combination sets, by dotted key, without what a row's other columns tell."""
    tables = {"train": encode(experiment.train), **encode(experiment.steps)}
    tables |= {"data": encode(experiment.data), "distill": encode(experiment.distill) or {}, "export": encode(experiment.export)}
    tables["model"] = {"init": experiment.init} if experiment.init else {}
    return {key: value for key, value in _flat(tables) if key not in _TOLD}


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _defaults(table: str, kind: type) -> dict[str, Any]:
    """What a table's keys are where a recipe does not set them, by dotted key."""
    given = {field.name: field.default for field in fields(kind) if field.default is not MISSING}
    made = {field.name: field.default_factory() for field in fields(kind) if field.default_factory is not MISSING}
    return dict(_flat({table: encode(given | made)}))


_LAYERS = ("prune.exclude", "prune.include")  # lists of names, which have words of their own


def _off() -> dict[str, Any]:
    """What steps leave undone. A row does not speak of it; of how it was trained it speaks whatever the default is."""
    kinds = table_types()
    return {key: value for table in step_tables() for key, value in _defaults(table, kinds[table]).items()} | {
        key: [] for key in _LAYERS
    }


def _unsaid() -> dict[str, Any]:
    """Numbers with which a recipe asks for nothing, by dotted key: a row's name does not speak of them.

    What steps leave undone is their default; of a training and of data it is a 0 that nobody asked for.
    """
    trained = (_defaults("train", TrainSettings), *(_defaults("data", kind) for kind in DATASETS.values()))
    zero = {key: value for defaults in trained for key, value in defaults.items() if value == 0}
    return zero | {key: value for key, value in _off().items() if isinstance(value, int | float)}


def row_ids(experiments: Sequence[Experiment]) -> list[str]:
    """Short names, unique in a run, that can name files: the case or method, what differs between its rows, the pruned share."""
    varying, unsaid, tables = _varying([_settings(experiment) for experiment in experiments]), _unsaid(), step_tables().keys()
    settings = _in_force(experiments, _of_taken_steps(experiments, tables))
    traits = [
        _traits(
            experiment,
            {key: value for key, value in own.items() if key in varying and not (key in unsaid and value == unsaid[key])},
            tables,
        )
        for experiment, own in zip(experiments, settings, strict=True)
    ]
    called = [experiment.case or experiment.method.name for experiment in experiments]
    told = {name: _told([trait for each, trait in zip(called, traits, strict=True) if each == name]) for name in set(called)}
    rows = [
        (name, trait, share_label(experiment.pruning), *told[name])
        for name, experiment, trait in zip(called, experiments, traits, strict=True)
    ]
    short = [_id(*row, lists=False) for row in rows]
    alike = Counter(short)
    ids = [_id(*row, lists=True) if alike[name] > 1 else name for name, row in zip(short, rows, strict=True)]
    seen: dict[str, int] = {}
    unique = []
    for name in ids:
        file = name.casefold()  # some folders know no other
        seen[file] = seen.get(file, 0) + 1
        unique.append(name if seen[file] == 1 else f"{name}-{seen[file]}")
    return unique


def _traits(experiment: Experiment, varying: Mapping[str, Any], tables: Set[str]) -> dict[str, Any]:
    """What can tell rows of one name apart, besides the pruned share; a key that has no words of its own is a trait by name."""
    pruning, method, finetune = experiment.pruning, experiment.method, experiment.finetune
    matched = method.name == "none" or method.granularity == pruning.granularity
    steps = {_trait(key): value for key, value in varying.items() if key.split(".")[0] in tables and key not in _LAYERS}
    return {
        "granularity": pruning.granularity,
        "trained on": "" if matched else f"on-{plural(method.granularity)}",
        "scope": pruning.scope,
        "unit": pruning.unit,
        "pruned by": f"by-{pruning.shares}" if pruning.shares != experiment.usual_shares else "",
        "exclude": _named("without", pruning.exclude),
        "include": _named("with", pruning.include),
        **steps,
        "evaluation": pruning.evaluation,
        "model": experiment.model_name,
        "epochs": experiment.train.epochs,
        "finetune": finetune.epochs or "",
        "finetune-after": f"after-{finetune.after}" if finetune.epochs else "",
        "seed": experiment.seed,
        **{_trait(key): value for key, value in varying.items() if key.split(".")[0] not in tables},
        "values": "+".join(experiment.export.values),
        **telling_options(method),
    }


def _trait(key: str) -> str:
    """A dotted key in a row's name: "lr", "lr_schedule", "align", "shrink-align", "distill-weight"."""
    table, own = key.split(".")[0], below_table(key)
    return own if table in ("data", "model", "train", "prune") else f"{table}-{own}"


def _named(word: str, layers: Sequence[str]) -> str:
    """Layers in a row's name, by name where these are short: "without-conv1"."""
    names = "-".join(layers)
    return "" if not layers else f"{word}-{names}" if len(names) <= 40 else f"{word}-{len(layers)}-layers"


_SAYS_NOTHING = frozenset({"auto"})  # words that are nothing without their key
_OWN_WORDS = frozenset({"trained on", "pruned by", "exclude", "include", "finetune-after"})  # traits that have some in `_traits`


def _told(traits: Sequence[Mapping[str, Any]]) -> tuple[Set[str], Set[str]]:
    """Traits in which some rows of a case or method differ; and those whose words are unclear without their key.

    A word is unclear where another of these traits has the same.
    """
    keys = {key for trait in traits for key in trait}
    telling = {key for key in keys if len({str(trait.get(key)) for trait in traits}) > 1}
    keys_of: dict[str, set[str]] = {}
    for trait in traits:
        for key in telling & trait.keys():
            if trait[key] and isinstance(trait[key], str):
                keys_of.setdefault(trait[key], set()).add(key)
    unclear = {key for word, found in keys_of.items() if len(found) > 1 or word in _SAYS_NOTHING for key in found}
    return telling, unclear - _OWN_WORDS


def _id(called: str, trait: Mapping[str, Any], share: str, telling: Set[str], unclear: Set[str], *, lists: bool) -> str:
    """A row's name, fit for a file.

    Args:
        called: its case or method.
        trait: what can tell it apart.
        share: what is pruned.
        telling: see ``_told``.
        unclear: see there.
        lists: whether lists are said, which are long: where nothing else tells a row apart.
    """
    said = [key for key in trait if key in telling and (lists or not isinstance(trait[key], list))]
    words = [word for key in said if (word := _word(key, trait[key], key in unclear))]
    name = "-".join([called, *words, share])
    return "-".join(name.split()).replace("/", "_").replace(":", "of")


def _word(key: str, value: Any, unclear: bool) -> str:
    """A trait in a row's name: numbers and lists need their key, words only of a learning rate, or where they are unclear alone.

    What is off or open says nothing; a path is its file.
    """
    if value is None or value == "none" or value == "" or isinstance(value, bool) or value == []:
        return key if value is True else ""
    if isinstance(value, str):
        word = PurePath(value).stem if "/" in value else value
        return f"{key}-{word}" if unclear or key.rpartition("-")[2].startswith("lr_") else word
    parts = value if isinstance(value, list) else [value]
    told = "_".join(part if isinstance(part, str) else f"{part:g}" for part in parts)
    return f"{key}{'_' if key[-1].isdigit() else ''}{told}"
