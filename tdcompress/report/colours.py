"""Colours and markers of the plots, and how they follow a page's light or dark theme.

The hues differ in lightness as well, every series has its own marker, and lines are named where they end: nothing is told by
colour alone. All are readable as text on white (contrast of 4.5 or more).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tdcompress.report.series import Series

INK = "#1f2328"
MUTED = "#59636e"
GRID = "#d8dee4"
SURFACE = "#ffffff"
PLAIN = "#6b7280"
PALETTE = ("#0b62b0", "#c2410c", "#0f7b5f", "#8e3a9d", "#86690a", "#2f7f95", "#b02a5b")
MARKERS = (("o", 5.5), ("s", 5.0), ("D", 4.8), ("^", 6.0), ("v", 6.0), ("P", 7.0), ("X", 7.0))  # shape, size in points

# The variables of page.css that these are replaced by in drawings inside a page.
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", SURFACE: "--surface", PLAIN: "--plain"} | {
    colour: f"--series-{number}" for number, colour in enumerate(PALETTE, start=1)
}

FASTER, SLOWER, NO_CLAIM = PALETTE[0], PALETTE[1], PLAIN

_OWN = {"targeted": 0, "dropout": 1, "l1": 2, "l0": 3, "variational": 4, "smallify": 5, "random_prune": 6}


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a series is drawn."""

    colour: str
    marker: str
    marker_size: float
    dashed: bool


def styles(series: Sequence[Series]) -> tuple[Style, ...]:
    """One style each.

    A method's first series has the method's own colour in every report, and plain training is grey. The rest take what is left. A
    palette that is used up begins again, dashed.
    """
    chosen: dict[int, int] = {}
    for number, line in enumerate(series):
        own = _OWN.get(line.method)
        if own is not None and own not in chosen.values():
            chosen[number] = own
    uses = [list(chosen.values()).count(index) for index in range(len(PALETTE))]
    dashed: set[int] = set()
    for number, line in enumerate(series):
        if line.method != "none" and number not in chosen:
            chosen[number] = min(range(len(PALETTE)), key=uses.__getitem__)
            if uses[chosen[number]]:
                dashed.add(number)
            uses[chosen[number]] += 1
    dashed |= set([number for number, line in enumerate(series) if line.method == "none"][1:])
    return tuple(_style(chosen.get(number), dashed=number in dashed) for number in range(len(series)))


def _style(index: int | None, *, dashed: bool) -> Style:
    """The palette's style of this index, or that of plain training."""
    marker, size = MARKERS[index or 0]
    return Style(colour=PLAIN if index is None else PALETTE[index], marker=marker, marker_size=size, dashed=dashed)
