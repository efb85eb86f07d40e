"""Every key of a recipe with its values, default and meaning, read from the settings dataclasses that own them.

The dataclasses' docstrings are the only place where a key is explained; what people read cannot fall behind the code.
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

from tdcompress.data.registry import DATASETS
from tdcompress.methods.registry import METHODS
from tdcompress.models.registry import MODELS
from tdcompress.recipes.experiment import table_types
from tdcompress.recipes.source import OPTIONAL, required_tables
from tdcompress.recipes.sweep import swept
from tdcompress.report.document import Block, Document, Items, Paragraph, Subheading
from tdcompress.report.tables import Table, text_columns

# The tables whose further keys depend on the name that one key gives.
NAMED: Mapping[str, tuple[str, Mapping[str, type]]] = {
    "data": ("name", DATASETS),
    "model": ("name", MODELS),
    "sparsity": ("method", METHODS),
}

_TYPES: Mapping[Any, str] = {int: "whole number", float: "number", str: "text", bool: "true or false"}
_ENTRY = re.compile(r"^    (\w+): ", flags=re.MULTILINE)
COLUMNS = text_columns("key", "value", "default", "for", "meaning")


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of a recipe.

    Attributes:
        path: dotted, below its table: "optimizer.lr".
        values: what it may be, in words.
        default: as TOML; "needed" where there is none, empty where it stays open.
        meaning: from the docstring.
    """

    path: str
    values: str
    default: str
    meaning: str


def keys_of(settings: type, prefix: str = "") -> list[Key]:
    """The keys that a settings dataclass owns, those of nested dataclasses below their own."""
    hints, meanings = typing.get_type_hints(settings), meanings_of(settings)
    found: list[Key] = []
    for field in dataclasses.fields(settings):
        kind, path = hints[field.name], f"{prefix}{field.name}"
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            found += keys_of(kind, f"{path}.")
        else:
            found.append(Key(path=path, values=in_words(kind), default=_default(field), meaning=meanings.get(field.name, "")))
    return found


def meanings_of(settings: type) -> dict[str, str]:
    """Key -> its text under "Attributes:" in the docstring of the class or, for what it inherits, of the class it is from."""
    found: dict[str, str] = {}
    for owner in reversed(settings.__mro__):
        _, _, attributes = inspect.cleandoc(owner.__doc__ or "").partition("Attributes:\n")
        parts = _ENTRY.split(attributes)
        found |= {name: " ".join(text.split()).replace("``", "") for name, text in zip(parts[1::2], parts[2::2], strict=True)}
    return found


def in_words(kind: Any) -> str:
    """A type as a recipe's author reads it: ``tuple[int, ...] | None`` is "list of whole numbers"."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " or ".join(f'"{option}"' for option in options)
    if origin in (Union, types.UnionType):
        return " or ".join(in_words(option) for option in options if option is not types.NoneType)
    if origin is tuple and options[-1] is Ellipsis:
        return f"list of {in_words(options[0])}{'s' if options[0] in (int, float) else ''}"
    if origin is tuple:
        return f"list of {len(options)} {in_words(options[0])}s"
    return _TYPES[kind]


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default is not dataclasses.MISSING:
        return _toml(field.default)
    return "needed" if field.default_factory is dataclasses.MISSING else _toml(field.default_factory())


def _toml(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


def homes(key: str) -> list[str]:
    """Dotted paths of the keys with this last name, in the order of a recipe's tables: "epochs" is ["train.epochs", ...]."""
    paths = [f"{section}.{own.path}" for section in required_tables() for kind in _kinds(section) for own in keys_of(kind)]
    return list(dict.fromkeys(path for path in paths if path.endswith(f".{key}")))


def _kinds(section: str) -> Iterable[type]:
    return NAMED[section][1].values() if section in NAMED else (table_types()[section],)


def table_of(section: str) -> Table:
    """The keys of one of a recipe's tables; "for" says which names own a key that not all own."""
    if section not in NAMED:
        own = ((key.path, key.values, key.default, "", key.meaning) for key in keys_of(table_types()[section]))
        return Table(title="", columns=COLUMNS, rows=tuple(own))
    chooser, registry = NAMED[section]
    names = " or ".join(f'"{name}"' for name in registry)
    first = (chooser, names, "needed", "", _CHOOSERS[section])
    return Table(title="", columns=COLUMNS, rows=(first, *_FURTHER.get(section, ()), *_named_rows(registry)))


def _named_rows(registry: Mapping[str, type]) -> Iterator[tuple[str, ...]]:
    """Keys of equal path and meaning are one row, whoever owns them; different defaults stand beside their owners."""
    owners: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for name, settings in registry.items():
        for key in keys_of(settings):
            owners.setdefault((key.path, key.values, key.meaning), {}).setdefault(key.default, []).append(name)
    for (path, values, meaning), defaults in owners.items():
        named = [name for names in defaults.values() for name in names]
        default = "; ".join(f"{value}: {', '.join(names)}" if len(defaults) > 1 else value for value, names in defaults.items())
        yield path, values, default, "" if len(named) == len(registry) else ", ".join(named), meaning


_CHOOSERS: Mapping[str, str] = {
    "data": "the data set",
    "model": 'the network; or "torchvision/" and the name of one of its classifiers; or a name that an installed package offers '
    "under the entry point tdcompress.models",
    "sparsity": "the training method",
}

_INIT = (
    "a file of weights that the training starts from: safetensors, or torch's .pth; a head with other classes starts anew; "
    'or "dirac": convolutions behind the first one begin as the identity'
)
_FURTHER: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "model": (("init", "text", "", "", _INIT),),
}
_TOP = Table(
    title="",
    columns=COLUMNS,
    rows=(
        ("name", "text", "needed", "", "the run's folder: letters, digits, - and _"),
        ("seed", "whole number", "0", "", "of every random generator"),
    ),
)
_HOW_TO_READ = Items(
    items=(
        "[data], [model], [sparsity] and [prune] are needed; the other tables may be left out.",
        'A column "for" names the data sets, networks or methods that have the key; where it is empty, all have it.',
        'A key with a dot stands in a table of its own: optimizer = { name = "sgd", lr = 0.1 }.',
        "An empty default: the key is left open. Where a meaning speaks of None, that is a key that is left out.",
        "An unknown key and a wrong value are errors that name the line. So is a key that does nothing in any combination: the "
        "message says what it needs.",
    )
)
_SWEEP: tuple[Block, ...] = (
    Subheading(title="[sweep]"),
    Paragraph(
        text="Several trainings and prunings in one recipe. Every combination becomes a row of the report; what does not depend "
        "on a key is computed once. Keys are written with their table, in quotation marks. A key that is set twice in one "
        "combination is an error, and so are two combinations that make the same row."
    ),
    Items(
        items=(
            'a list of values: "prune.fraction" = [0.0, 0.5, 0.9]',
            "alternatives that set several keys, crossed with the lists: a [[sweep.case]] table each",
            'a case\'s own name = "half the rate", without a table: what the report calls its rows',
            'the dense network among them: "sparsity.method" = "none" leaves the other keys of the method behind',
            f"what rows may differ in: {', '.join(swept())}, or a key below one of them",
        )
    ),
    Subheading(title="Changing a key for one run"),
    Paragraph(
        text="tdcompress run RECIPE --set train.epochs=1 --set 'sweep.prune.fraction=[0.5, 0.9]'. A value is read as TOML, "
        "and as text where it is none. Keys of the file that only a change turns off are as if they were not written: those of "
        "the average beside --set train.average=none, for example. A change for several recipes may do nothing in some of them, "
        "but not in all."
    ),
)


def keys_document() -> Document:
    """What a recipe can say, all of it."""
    blocks: list[Block] = [_HOW_TO_READ, _TOP]
    for section in (*required_tables(), *OPTIONAL):
        blocks.append(Subheading(title=f"[{section}]"))
        if section not in NAMED and (about := _about(table_types()[section])):
            blocks.append(Paragraph(text=about))
        blocks.append(table_of(section))
    return Document(
        title="What a recipe can say",
        subtitle="A recipe is a TOML file with a table for each step, from the data to the benchmark. tdcompress run FILE.toml "
        "runs it. tdcompress recipes lists those that are shipped, and with --copy NAME writes one here, to be changed.",
        blocks=(*blocks, *_SWEEP),
    )


def _about(settings: type) -> str:
    """What the first paragraph of a docstring says after "The [prune] table: "."""
    paragraph = " ".join(inspect.cleandoc(settings.__doc__ or "").split("\n\n")[0].split())
    _, _, told = paragraph.partition(" table: ")
    return told[:1].upper() + told[1:]
