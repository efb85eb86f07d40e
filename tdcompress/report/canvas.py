"""Where matplotlib is imported, and only when something is drawn; the look that all plots share."""

import importlib.util
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tdcompress.report import colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

WIDTH_INCHES = 6.2


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def canvas(height: float, panels: Sequence[float] = (1,)) -> "tuple[Canvas, list[Axes]]":
    """An empty drawing of panels one above the other, their heights in the given proportions.

    Args:
        height: of the whole, in inches.
        panels: relative heights, one for each panel.
    """
    from matplotlib.figure import Figure as Canvas

    drawing = Canvas(figsize=(WIDTH_INCHES, height), layout="constrained")
    grid = drawing.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": panels})
    return drawing, list(grid[:, 0])


def beside(axes: "Axes", level: float, words: str, **style: Any) -> None:
    """Words to the right of the axes, at a level of its y axis.

    Args:
        axes: matplotlib's.
        level: on the y axis.
        words: the text.
        style: of matplotlib's text.
    """
    position: Any = ("axes fraction", "data")
    axes.annotate(words, (1.04, level), xycoords=position, va="center", annotation_clip=False, **style)


def render(name: str, plot: "Callable[[], Canvas]") -> tuple[str, bytes]:
    """Draw once; SVG text and PNG bytes, the same for the same numbers (no dates, fixed ids)."""
    with _look(name):
        drawing = plot()
        vector, pixels = io.StringIO(), io.BytesIO()
        drawing.savefig(vector, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        drawing.savefig(pixels, format="png", dpi=180, facecolor=colours.SURFACE, metadata={"Software": None})
    return vector.getvalue(), pixels.getvalue()


@contextmanager
def _look(name: str) -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(
        {
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],  # part of matplotlib: the same picture on every machine
            "font.size": 9.5,
            "text.color": colours.INK,
            "axes.labelcolor": colours.MUTED,
            "axes.edgecolor": colours.GRID,
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "axes.axisbelow": True,
            "xtick.color": colours.GRID,
            "ytick.color": colours.GRID,
            "xtick.labelcolor": colours.MUTED,
            "ytick.labelcolor": colours.MUTED,
            "grid.color": colours.GRID,
            "grid.linewidth": 0.6,
            "svg.fonttype": "none",
            "svg.hashsalt": name,
        }
    ):
        yield
