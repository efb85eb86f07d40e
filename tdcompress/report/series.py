"""Rows that differ only in how much was pruned form one series: one line of the accuracy plot, one name in the headline."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Any

from tdcompress.records.report import Row, RowConfig
from tdcompress.report.text import below_table, plural
from tdcompress.report.zeros import dense_row, pruned_share
from tdcompress.steps import step_tables

_SYMBOLS = {"gamma": "γ", "alpha": "α", "beta": "β"}
_AFTER = {"prune": "after pruning", "shrink": "after shrinking"}
_ALWAYS_SHOWN = ("gamma", "alpha", "beta", "keep_per_filter")
_USUAL = {"schedule": "constant"}  # not said; anything else is, also where all of a method's series share it
_SAID_BEFORE = {"distill": "distill"}  # keys of a table that are nothing without its name; steps have theirs
WITHOUT_GRANULARITY = ("none", "l1")  # methods that train alike, whatever is pruned afterwards


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a series has where one thing was asked of its pruning: one row for each seed.

    Attributes:
        rows: by pruned share, then seed.
        asked: the fraction; None where a count per filter was kept.
    """

    rows: tuple[Row, ...]
    asked: float | None

    @property
    def share(self) -> float:
        """Share (0..1) that is pruned: the mean over seeds, which may have trained to different zeros."""
        return fmean(pruned_share(row) for row in self.rows)

    @property
    def accuracy(self) -> float:
        """Mean over seeds of the deployed files' accuracy."""
        return fmean(self.accuracies)

    @property
    def accuracies(self) -> tuple[float, ...]:
        """The deployed files' accuracy, of each seed."""
        return tuple(row.accuracy_onnx for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Series:
    """One method with one setting, at every pruned share.

    Attributes:
        method: as in the recipe.
        name: the recipe's for the case, else the method.
        detail: what tells this series from others of the name: "γ 0.9, α 0.66"; may be empty.
        rows: by pruned share, then seed.
    """

    method: str
    name: str
    detail: str
    rows: tuple[Row, ...]

    @property
    def label(self) -> str:
        """Name and detail: "targeted (γ 0.9, α 0.66)"."""
        return f"{self.name} ({self.detail})" if self.detail else self.name

    @property
    def points(self) -> tuple[Point, ...]:
        """Rows by what was asked, not by what is zero: seeds and methods would not match. By share, then by what was asked."""
        alike: dict[tuple[float | None, int | None], list[Row]] = {}
        for row in self.rows:
            alike.setdefault((row.fraction, row.keep_per_filter), []).append(row)
        points = [Point(rows=tuple(rows), asked=asked) for (asked, _), rows in alike.items()]
        return tuple(sorted(points, key=lambda point: (point.share, point.asked or 0.0)))


def told(row: Row) -> dict[str, Any]:
    """What tells a row apart, by field: see ``RowConfig``."""
    return {field.name: getattr(row, field.name) for field in fields(RowConfig)}


def training_identity(row: Row) -> tuple[object, ...]:
    """What tells trainings apart: rows that agree in it are prunings, evaluations and files of one training."""
    granularity = "weight" if row.method in WITHOUT_GRANULARITY else row.trained_granularity or row.granularity
    units = (row.scope, row.unit) if granularity == "unit" else ()
    options = json.dumps([row.options, _of_training(row)], sort_keys=True)
    return row.method, options, granularity, *units, row.seed, training_epochs(row), row.device, row.train_seconds


def training_epochs(row: Row) -> int:
    """Epochs of the training alone, without fine-tuning."""
    return row.epochs - row.finetune_epochs


def as_trained(row: Row) -> Row:
    """The row without what came after its training, so that a series of such rows is named by how it was trained."""
    return replace(
        row,
        case="",
        values="float32",
        shares=None,
        evaluation="plain",
        epochs=training_epochs(row),
        finetune_epochs=0,
        finetune_after=None,
        differs=_of_training(row),
    )


def _of_training(row: Row) -> dict[str, Any]:
    """Keys of every table but those of what comes after."""
    after = (*step_tables(), "export")
    return {key: value for key, value in row.differs.items() if key.partition(".")[0] not in after}


def dense_accuracy(rows: Sequence[Row]) -> float:
    """Accuracy of dense.onnx, unpruned; of a plain training the mean over its seeds."""
    return fmean(dense_accuracies(rows))


def dense_accuracies(rows: Sequence[Row]) -> tuple[float, ...]:
    """Accuracy of dense.onnx, unpruned; of a plain training that of each seed."""
    dense = dense_row(rows)
    if dense.method != "none":
        return (dense.accuracy_dense,)
    alike = [row for row in rows if row.method == "none" and _trained_by(row) == _trained_by(dense)]
    return tuple({row.seed: row.accuracy_dense for row in alike}.values())


def _trained_by(row: Row) -> tuple[object, ...]:
    """What plain trainings of several seeds have in common."""
    return row.options, training_epochs(row), _of_training(row)


def group(rows: Iterable[Row]) -> tuple[Series, ...]:
    """Series in the order of their first rows."""
    members: dict[str, list[Row]] = {}
    for row in rows:
        members.setdefault(json.dumps([row.case, row.method, _shared(row)], sort_keys=True), []).append(row)
    firsts = [first for first, *_ in members.values()]
    return tuple(
        Series(
            method=group[0].method,
            name=_name(group[0]),
            detail=_detail(group[0], firsts),
            rows=tuple(sorted(group, key=lambda row: (pruned_share(row), row.seed))),
        )
        for group in members.values()
    )


def networks(rows: Iterable[Row]) -> tuple[tuple[Series, ...], Mapping[str, tuple[Row, ...]]]:
    """`group` with one file of each network, in float32 where there is such a file.

    Returns:
        The series, and for each row in them, by its id, the same network in other number formats.
    """
    files = _files(rows)
    return group(first for first, *_ in files), {first.id: tuple(others) for first, *others in files}


def one_file_each(rows: Iterable[Row]) -> tuple[Row, ...]:
    """One row of each network: that of its file in float32, where there is such a file."""
    return tuple(first for first, *_ in _files(rows))


def _files(rows: Iterable[Row]) -> list[list[Row]]:
    """The files of each network, the one in float32 first where there is such a file."""
    files: dict[str, list[Row]] = {}
    for row in rows:
        network = [row.case, row.method, _shared(row) | {"values": ""}, row.fraction, row.keep_per_filter, row.seed]
        files.setdefault(json.dumps(network, sort_keys=True), []).append(row)
    return [sorted(same, key=lambda row: row.values != "float32") for same in files.values()]


def _shared(row: Row) -> dict[str, Any]:
    """What all rows of a series have in common, beside the method; the empty word where it is as usual."""
    mismatched = row.method not in WITHOUT_GRANULARITY and row.trained_granularity is not None
    return {
        "options": row.options,
        "granularity": plural(row.granularity),
        "trained": f"trained by {row.trained_granularity}" if mismatched else "",
        "scope": "ranked by group" if row.scope == "group" else "",
        "unit": "filter alone" if row.unit == "filter" else "",
        "shares": f"pruned by {row.shares} shares" if row.shares else "",
        "evaluation": "released evaluation" if row.evaluation == "released" else "",
        "epochs": _epochs(training_epochs(row)),
        "fine-tuned": f"fine-tuned {_epochs(row.finetune_epochs)} {_AFTER[row.finetune_after]}" if row.finetune_after else "",
        "values": row.values if row.values != "float32" else "",
        **{key: _told(_setting_name(key), row.differs[key]) for key in sorted(row.differs, key=_name_first)},
    }


def _name(row: Row) -> str:
    return row.case or row.method


def _detail(row: Row, others: Sequence[Row]) -> str:
    """What the name of a row's series leaves open.

    A method's leaves open its rates; its other options where its series differ; the rest where any of the report differ. A case's
    leaves open that in which its own series differ.

    Args:
        row: of the series.
        others: one of each series, that one too.
    """
    siblings = [other for other in others if _name(other) == _name(row)]
    parts = []
    for key, value in in_order(row.options, _ALWAYS_SHOWN):
        always = not row.case and (key in _ALWAYS_SHOWN or (key in _USUAL and value != _USUAL[key]))
        if always or any(_word(other.options.get(key)) != _word(value) for other in siblings):
            parts.append(_told(_SYMBOLS.get(key, key.replace("_", " ")), value))
    beside = [_shared(other) for other in (siblings if row.case else others)]
    parts += [
        value for key, value in _shared(row).items() if key != "options" and any(other.get(key) != value for other in beside)
    ]
    return ", ".join(part for part in parts if part)


def in_order(values: Mapping[str, Any], first: Sequence[str]) -> list[tuple[str, Any]]:
    """Items in an order that a round trip through JSON cannot change: some keys first, the others by name."""
    return sorted(values.items(), key=lambda item: (first.index(item[0]) if item[0] in first else len(first), item[0]))


def _setting_name(key: str) -> str:
    """A dotted key of the recipe in words: "train.optimizer.weight_decay" is "weight decay"."""
    before = (step_tables() | _SAID_BEFORE).get(key.partition(".")[0], "")
    return f"{before} {below_table(key).replace('_', ' ')}".lstrip()


def _name_first(key: str) -> str:
    """So sorted, what was chosen by name stands before its own keys."""
    return key.removesuffix("name")


def _told(name: str, value: Any) -> str:
    """A setting as a label says it; nothing where it is off or empty. A whole 0 is off, a rate of 0.0 is a rate."""
    if value is None or value in ("", "none", []) or (isinstance(value, int) and not value):
        return ""
    if name.endswith("share") and isinstance(value, list | tuple):
        return f"{name} {' to '.join(map(_word, value))}"
    return name if value is True else f"{name} {_word(value)}"


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ("+" if all(isinstance(item, str) for item in value) else "/").join(map(_word, value))
    return str(value)
