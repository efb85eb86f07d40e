"""The papers' published tables, and which of a run's rows belongs to which of their columns."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any, Literal

from tdcompress.codec import decode, parse_json
from tdcompress.errors import UserError, did_you_mean
from tdcompress.records.report import Row
from tdcompress.records.stages import AnalysisRecord
from tdcompress.report.series import WITHOUT_GRANULARITY
from tdcompress.report.text import plural

_FORM = re.compile(r"(?P<method>[a-z0-9_]+?)(?:\((?P<parameters>[^)]*)\))?(?:\+l1\((?P<l1>[^)]+)\))?")
_ASSIGNMENT = re.compile(r"(?:(?P<key>\w+)=)?(?P<value>[^,]+)(?:,|$)")
_ONLY_PARAMETER = {"l0": "beta", "smallify": "strength"}  # what a number without a name is
_XTREME = re.compile(r"(?P<model>\w+) xtreme-(?P<kept>\d+)")
# Columns of section 5.5 and 5.6 whose names are sentences. k of Xtreme on ResNet-18 is not stated: any matches.
_PROSE = {
    "resnet18 xtreme (29,760 non-zero parameters, BatchNorm included)": ("resnet18", "targeted", True),
    "resnet32 ramping": ("resnet32", "targeted", False),
    "resnet32 smallify (intrinsic)": ("resnet32", "smallify", False),
}

# What headings do not say where it is as published; anything else is a variant.
_USUAL: Mapping[str, Any] = {
    "rescale": False,
    "draw": "unit",
    "ranking": "magnitude",
    "lr_scale": 1.0,
    "initial_drop": 0.001,
    "warmup": 0.5,
    "warmup_curve": "linear",
}

_SCHEDULES: Mapping[bool | None, tuple[str, ...]] = {False: ("constant",), True: ("ramp",), None: ("constant", "ramp")}


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One published table.

    Attributes:
        id: "workshop-3a".
        columns: by method as the table heads it, "targeted(alpha=0.66,gamma=0.75)", the value by prune percentage ("98.5").
        sd: standard deviations over runs, where they are published.
    """

    id: str
    source: str
    model: str
    dataset: str
    metric: str
    granularity: Literal["weight", "unit"]
    columns: dict[str, dict[str, float]]
    note: str = ""
    sd: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What a column's heading says of a training.

    Attributes:
        method: as in a recipe.
        parameters: of the method's own keys, the values that the heading names.
        l1: strength of an added L1 penalty.
        ramp: whether gamma and alpha are ramped; None = either.
        xtreme: whether weights are kept by count.
        model: where one table has several networks.
    """

    method: str
    parameters: Mapping[str, Decimal]
    l1: Decimal = Decimal(0)
    ramp: bool | None = False
    xtreme: bool = False
    model: str | None = None


@cache
def published_tables() -> Mapping[str, PublishedTable]:
    """All published tables by id, from the package's own data."""
    text = resources.files("tdcompress.report").joinpath("tables.json").read_text(encoding="utf-8")
    tables = [decode(PublishedTable, values, values.get("id", "tables.json")) for values in parse_json(text)["tables"]]
    return {table.id: table for table in tables}


def published_table(table_id: str) -> PublishedTable:
    """One published table.

    Raises:
        UserError: no such id; names the nearest.
    """
    tables = published_tables()
    if table_id in tables:
        return tables[table_id]
    raise UserError(f"no published table {table_id!r}{did_you_mean(table_id, tables)} (there are {', '.join(tables)})")


def read_heading(text: str) -> Heading:
    """Take a column's heading apart.

    Raises:
        ValueError: not a heading of the form "targeted(alpha=0.5,gamma=0.5)+l1(0.1)".
    """
    if text in _PROSE:
        model, method, xtreme = _PROSE[text]
        return Heading(method=method, parameters={}, ramp=None if xtreme else method == "targeted", xtreme=xtreme, model=model)
    if xtreme_match := _XTREME.fullmatch(text):
        kept = {"keep_per_filter": Decimal(xtreme_match["kept"])}
        return Heading(method="targeted", parameters=kept, ramp=None, xtreme=True, model=xtreme_match["model"])
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a column's heading")
    method, ramp = found["method"].removeprefix("ramping_"), found["method"].startswith("ramping_")
    numbers = {each["key"] or "": Decimal(each["value"]) for each in _ASSIGNMENT.finditer(found["parameters"] or "")}
    if "" in numbers and method == "l1":
        return Heading(method="l1", parameters={}, l1=numbers[""])
    parameters = {key or _ONLY_PARAMETER[method]: value for key, value in numbers.items()}
    return Heading(method=method, parameters=parameters, l1=Decimal(found["l1"] or 0), ramp=ramp)


def matches(heading: Heading, row: Row | AnalysisRecord, model: str) -> bool:
    """Whether a row's training is what a column's heading says; options that it does not name may be anything.

    Args:
        heading: what the column says.
        row: what was trained.
        model: the network of the run.
    """
    options = row.options
    return (
        row.method == heading.method
        and heading.model in (None, model)
        and all(_number(options.get(key)) == value for key, value in heading.parameters.items())
        and (_number(options.get("l1")) or Decimal(0)) == heading.l1
        and options.get("schedule", "constant") in _SCHEDULES[heading.ramp]
        and (options.get("keep_per_filter") is not None) == heading.xtreme
        and (row.method != "random_prune" or options.get("fraction") == row.fraction)
    )


def _number(value: Any) -> Decimal | None:
    return Decimal(repr(value)) if isinstance(value, int | float) else None


def variant(row: Row, heading: Heading) -> str:
    """What a row's training does that its column's heading does not say."""
    unusual = []
    named = {*heading.parameters, "l1", "schedule"}
    for key, usual in _USUAL.items():
        if key not in named and row.options.get(key, usual) != usual:
            unusual.append(f"{key} = {word(row.options[key])}")
    if heading.method == "variational" and row.options.get("beta", 0.01) != 0.01:  # a heading names only L0's
        unusual.append(f"beta = {row.options['beta']:g}")
    if heading.method == "targeted":
        unusual += [f"{key} = {row.options[key]:g}" for key in ("gamma", "alpha") if key in row.options and key not in named]
    if "keep_per_filter" in row.options and "keep_per_filter" not in named:
        unusual.append(f"keep_per_filter = {row.options['keep_per_filter']}")
    if row.trained_granularity is not None and row.method not in WITHOUT_GRANULARITY:
        unusual.append(f"trained on {plural(row.trained_granularity)}")
    if row.scope != "layer":
        unusual.append(f"scope = {row.scope}")
    if row.granularity == "unit" and row.unit == "whole":
        unusual.append("whole units")
    if "shares" in row.options:
        unusual.append(f"shares = {row.options['shares']}")
    if row.shares is not None:
        unusual.append(f"pruned by {row.shares} shares")
    if row.evaluation != "plain":
        unusual.append(f"evaluation = {row.evaluation}")
    if row.finetune_after is not None:
        unusual.append(f"fine-tuned after {row.finetune_after}")
    unusual += [f"{key} = {word(value)}" for key, value in row.differs.items() if not key.startswith("train.")]
    return ", ".join(unusual)


def word(value: Any) -> str:
    """A setting's value as a heading shows it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def percentage_of(row: Row, values: Mapping[str, float], heading: Heading) -> str | None:
    """The table's row that a network belongs to.

    Args:
        row: the network.
        values: of the column: the percentage of weights that are pruned, as the table writes it ("87.5") -> the published cell.
        heading: what the column says.

    Returns:
        A key of ``values``; None where the network belongs to none.
    """
    if heading.xtreme:
        return (
            next(iter(values))
            if row.keep_per_filter is not None and row.keep_per_filter == row.options["keep_per_filter"]
            else None
        )
    if heading.method == "smallify" and heading.model is not None:  # the sparsity that it ends with by itself
        return next(iter(values)) if row.fraction == 0 else None
    if row.fraction is None:
        return None
    percentage = 100 * Decimal(repr(row.fraction))
    return next((key for key in values if Decimal(key) == percentage), None)
