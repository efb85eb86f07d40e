"""A report as a sequence of blocks of plain text, which the renderers turn into markdown and HTML."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tdcompress.records.report import Report
from tdcompress.report import details, layers, measures, shrinking, text
from tdcompress.report.files import SELECTED_FILE
from tdcompress.report.headline import sentences
from tdcompress.report.one_network import explanations
from tdcompress.report.row_names import labels, letters, with_names
from tdcompress.report.series import in_order
from tdcompress.report.tables import Table, latency_under, main_setting, selected_row, summary
from tdcompress.report.unpruned import explanation


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """Running text; ``lead`` is the opening one."""

    text: str
    lead: bool = False


@dataclass(frozen=True, kw_only=True)
class Subheading:
    """A heading."""

    title: str


@dataclass(frozen=True, kw_only=True)
class Items:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names and their values.

    Attributes:
        facts: of them.
        form: on a page they follow one another in lines, or stand below one another in columns; or a few are large, as its
            first sight.
    """

    facts: tuple[tuple[str, str], ...]
    form: Literal["lines", "columns", "large"] = "lines"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A plot.

    Attributes:
        name: file name without suffix.
        alt: what it shows, for those who do not see it.
        caption: how to read it.
    """

    name: str
    alt: str
    caption: str


_HOST_FACTS_FIRST = ("cpu", "cores", "memory_bytes", "os", "versions")

Block = Paragraph | Subheading | Items | Facts | Figure | Table


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str
    blocks: tuple[Block, ...]


def compose(report: Report, figures: Mapping[str, Figure], remark: str = "") -> Document:
    """Put a report in order: what was found, what was chosen, then the evidence.

    Args:
        report: the records.
        figures: the plots that were drawn, by name ("accuracy", "bytes", "latency"); a missing one is left out.
        remark: a paragraph that follows the summary, such as why there are no plots.
    """
    measured = any(row.latency for row in report.rows)
    letter_of = letters(report)
    first, *rest = sentences(report)
    blocks: list[Block | None] = [
        Paragraph(text=first, lead=True),
        Paragraph(text=" ".join(rest)) if rest else None,
        _chosen(report),
        figures.get("accuracy"),
        Paragraph(text=why) if (why := explanation(report)) else None,
        *(Paragraph(text=said) for said in explanations(report)),
        *(_summary(report) if report.rows else ()),
        *measures.tables(report),
        Paragraph(text=remark) if remark else None,
        figures.get("bytes"),
        *((details.sizes(report),) if report.rows else ()),
        *shrinking.tables(report),
        *layers.tables(report),
        figures.get("latency") if measured else None,
        *_hosts(report),
        *((details.accuracies(report), details.trainings(report)) if report.rows else ()),
        *((Subheading(title="Notes"), Items(items=report.notes)) if report.notes else ()),
        Subheading(title="Made with"),
        Facts(facts=(("recipe", report.recipe_key), ("created", report.created), *sorted(report.versions.items()))),
    ]
    classes = [f"{len(report.classes)} classes"] if report.classes else []
    return Document(
        title=report.run,
        subtitle=", ".join([f"{report.model} on {report.data}", *classes, f"{report.test_samples:,} test samples"]),
        blocks=tuple(
            with_names(block, letter_of) if isinstance(block, Table) else block for block in blocks if block is not None
        ),
    )


def _summary(report: Report) -> tuple[Block | None, ...]:
    legend = tuple((letter, name) for name, letter in letters(report).items())
    return (
        with_names(summary(report), labels(report)),
        Facts(facts=legend, form="columns") if legend else None,
        _latency_note(report),
    )


def _chosen(report: Report) -> Facts | None:
    """The figures of model.onnx."""
    row = selected_row(report)
    if row is None:
        return None
    facts = [
        (SELECTED_FILE, row.id),
        (report.measure.name, text.figure(row.accuracy_onnx, report.measure)),
        ("file", text.size(row.onnx_bytes)),
        ("of the dense file", text.ratio(row.onnx_bytes / row.dense_onnx_bytes)),
    ]
    latency = latency_under(row, main_setting(report.rows))
    if latency is not None and latency.claim != "none":
        facts.append((f"of the dense time ({latency.claim})", text.ratio(latency.ratio_to_dense)))
    return Facts(facts=tuple(facts), form="large")


def _latency_note(report: Report) -> Paragraph | None:
    setting = main_setting(report.rows)
    if setting is None:
        return Paragraph(text="Latency was not measured.")
    of_setting = next(latency for row in report.rows if (latency := latency_under(row, setting)) is not None)
    return Paragraph(
        text=f"Times of this table: {text.setting(of_setting)}, on {setting.host}. Ratios are time / time of the dense network, "
        "below 1 is faster; “no claim” means that the measurement does not show a difference that can be trusted."
    )


def _hosts(report: Report) -> list[Block]:
    """A block per host, in the order of the rows."""
    hosts = dict.fromkeys(latency.host for row in report.rows for latency in row.latency)
    blocks: list[Block] = []
    for host in hosts:
        blocks.append(details.latencies(report, host))
        known = in_order(report.hosts.get(host, {}), _HOST_FACTS_FIRST)
        facts = tuple(_fact(name, value) for name, value in known if name != "id")
        if facts:
            blocks.append(Facts(facts=facts))
    return blocks


def _fact(name: str, value: Any) -> tuple[str, str]:
    if name.endswith("_bytes") and type(value) is int:
        return name.removesuffix("_bytes").replace("_", " "), text.size(value)
    return name.replace("_", " "), _words(value)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in in_order(value, ()))
    if isinstance(value, list | tuple):
        return ", ".join(_words(item) for item in value) or "none"
    return "unknown" if value is None else str(value)
