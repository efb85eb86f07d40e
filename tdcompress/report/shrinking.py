"""What shrinking did: each shrunk row with its certificate, and one row layer by layer."""

from tdcompress.records.report import Report, Row
from tdcompress.records.stages import DeadUnits, ShrinkRecord
from tdcompress.report.series import one_file_each
from tdcompress.report.tables import Table, line_of, number_columns, selected_row, text_columns

TRAINED_ON = "The certificate is of shrinking; fine-tuning after it changed the weights."


def tables(report: Report) -> tuple[Table, ...]:
    """Nothing where no row was shrunk, and a line for each network that was; every row's layers are in report.json."""
    shrunk = [row for row in one_file_each(report.rows) if row.shrunk is not None]
    if not shrunk:
        return ()
    return (_rows(report, shrunk), *_layers(_shown(report, shrunk)))


def _rows(report: Report, shrunk: list[Row]) -> Table:
    tuned = any(row.finetune_after == "shrink" for row in shrunk)
    lines = [(row.id, *_cells(row.shrunk), *([_fine_tuning(row)] if tuned else [])) for row in shrunk if row.shrunk]
    titles = ("parameters", "MACs", "dead but kept", "certificate: difference", "of a largest output")
    return Table(
        title="Shrinking",
        columns=(*text_columns("row"), *number_columns(*titles, *(["then fine-tuned"] if tuned else []))),
        rows=tuple(lines),
        notes=(TRAINED_ON,) if tuned else (),
        highlight=line_of(report.selected, lines),
    )


def _cells(shrink: ShrinkRecord) -> tuple[str, ...]:
    return (
        f"{shrink.parameters_before:,} → {shrink.parameters_after:,}",
        f"{shrink.macs_before:,} → {shrink.macs_after:,}",
        str(sum(dead.count for dead in shrink.dead_but_kept)),
        f"{shrink.max_error:.1e}",
        f"{shrink.max_output:.3g}",
    )


def _fine_tuning(row: Row) -> str:
    return "-" if row.finetune_after != "shrink" else f"{row.finetune_epochs} epoch{'s' * (row.finetune_epochs != 1)}"


def _shown(report: Report, shrunk: list[Row]) -> Row:
    """The selected row if it was shrunk, else the one with the fewest parameters."""
    selected = selected_row(report)
    if selected is not None and selected.shrunk is not None:
        return selected
    return min(shrunk, key=lambda row: row.shrunk.parameters_after if row.shrunk else 0)


def _layers(row: Row) -> tuple[Table, ...]:
    if row.shrunk is None or not row.shrunk.layers:
        return ()
    shrink = row.shrunk
    return (
        Table(
            title=f"Layers of {row.id}",
            columns=(*text_columns("layer"), *number_columns("units before", "after"), *text_columns("dead but kept")),
            rows=tuple(
                (layer.name, str(layer.before), str(layer.after), _dead(layer.name, shrink.dead_but_kept))
                for layer in shrink.layers
            ),
        ),
    )


def _dead(layer: str, dead: tuple[DeadUnits, ...]) -> str:
    return "; ".join(f"{units.count}: {units.reason}" for units in dead if units.layer == layer) or "-"
