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
MARKERS = ("o", "s", "D", "^", "v", "P", "X")

# The variables of page.css that these are replaced by in drawings inside a page.
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", SURFACE: "--surface", PLAIN: "--plain"} | {
    colour: f"--series-{number}" for number, colour in enumerate(PALETTE, start=1)
}

FASTER, SLOWER, NO_CLAIM = PALETTE[0], PALETTE[1], PLAIN

_PREFERRED = {"targeted": 0, "dropout": 1, "l1": 2, "l0": 3, "variational": 4, "smallify": 5, "random_prune": 6}


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a series is drawn."""

    colour: str
    marker: str
    dashed: bool


def styles(series: Sequence[Series]) -> tuple[Style, ...]:
    """One style each.

    A method keeps its colour in every report, plain training is grey, and a palette that is used up begins again, dashed.
    """
    found: list[Style] = []
    turns = dict.fromkeys(range(len(PALETTE)), 0)
    plain = 0
    for line in series:
        if line.method == "none":
            found.append(Style(colour=PLAIN, marker="o", dashed=plain > 0))
            plain += 1
            continue
        wanted = _PREFERRED.get(line.method, 0)
        index = min(turns, key=lambda index: (turns[index], (index - wanted) % len(PALETTE)))
        found.append(Style(colour=PALETTE[index], marker=MARKERS[index], dashed=turns[index] > 0))
        turns[index] += 1
    return tuple(found)
