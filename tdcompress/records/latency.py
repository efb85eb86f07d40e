"""How fast one file is on one host, beside the dense network's."""

from dataclasses import dataclass, field
from typing import Literal

from tdcompress.codec import LEFT_OUT

LatencyClaim = Literal["faster", "slower", "none"]


@dataclass(frozen=True, kw_only=True)
class RowLatency:
    """Latency of one file on one host; ratio = time / time of the dense network, below 1 is faster, with a 95 % interval.

    ``tokens`` are those that a call says, such as a translation; None where it says none.
    """

    host: str
    backend: str
    provider: str
    threads: int
    batch: int
    p50_ns: float
    ratio_to_dense: float
    ratio_low: float
    ratio_high: float
    claim: LatencyClaim
    reason: str = ""
    tokens: int | None = field(default=None, metadata=LEFT_OUT)

    def __post_init__(self) -> None:
        for name in ("threads", "batch"):
            if (count := getattr(self, name)) < 1:
                raise ValueError(f"{name}: {count} is out of range, 1 or more")
        for name in ("p50_ns", "ratio_to_dense", "ratio_low", "ratio_high", "tokens"):
            if (number := getattr(self, name)) is not None and number < 0:
                raise ValueError(f"{name}: {number} is out of range, 0 or more")
        if self.ratio_low > self.ratio_high:
            raise ValueError(f"ratio_low: {self.ratio_low} is above ratio_high, {self.ratio_high}")

    @property
    def tokens_per_second(self) -> float | None:
        """Of the median call; None where a call says no tokens."""
        return None if self.tokens is None else self.tokens / (self.p50_ns / 1e9)
