"""What every ``accuracy`` of a run is, what else is measured of a file, and how people read both."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tdcompress.codec import LEFT_OUT


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What every ``accuracy`` of a run is, and how people read it. In files it is 0..1, and higher is better.

    Attributes:
        name: as it stands in sentences and titles: "accuracy", "BLEU".
        unit: what stands behind a number: "%", or nothing.
        scale: what a number is multiplied by to be read.
        counts_samples: it is the share of the test samples that are right, so that one more of them is 1/N.
    """

    name: str
    unit: str = ""
    scale: float = 100.0
    counts_samples: bool = False


ACCURACY = Measure(name="accuracy", unit="%", counts_samples=True)
BLEU = Measure(name="BLEU")
MEASURES: Mapping[str, Measure] = {"classification": ACCURACY, "translation": BLEU}
"""Task -> what its ``accuracy`` is: for readers of files, which import no task, since these need torch."""


@dataclass(frozen=True, kw_only=True)
class FileFigure:
    """One more thing that was measured of a file on the test set, besides its ``accuracy``.

    Attributes:
        measure: what it is, and how people read it.
        value: 0..1.
        how: it was counted, as its tool states it; may be empty.
    """

    measure: Measure
    value: float
    how: str = ""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A record with an ``accuracy``, or with several: what that is."""

    measure: Measure = field(default=ACCURACY, metadata=LEFT_OUT)
