"""A benchmark as terminal tables: column names and rows of strings, nothing printed. Three, because one is too wide to read."""

from collections.abc import Callable

from tdcompress.bench.report import BenchReport, Latency

TIMES = ("file", "time / dense", "95 % interval", "claim", "p50 ms", "p90 ms", "p99 ms")
NOTES = ("file", "no claim because", "to know")
COSTS = ("file", "KiB", "gzip KiB", "load ms", "peak MiB")
CONTROL = "dense against itself"
TOKENS = "tokens/s"

Rows = list[tuple[str, ...]]


def times_columns(report: BenchReport) -> tuple[str, ...]:
    """`TIMES`, and `TOKENS` where calls say tokens."""
    return TIMES if report.control.tokens is None else (*TIMES, TOKENS)


def times_table(report: BenchReport) -> Rows:
    """Rows under `times_columns`, the control first, then the files in the order asked for.

    Where not all ran in the same runtime, names say which.
    """

    def cells(latency: Latency) -> tuple[str, ...]:
        claimed = "" if latency is report.control else "no claim" if latency.claim == "none" else latency.claim
        return (
            f"{latency.ratio_to_dense:.3f}",
            f"{latency.ratio_low:.3f} .. {latency.ratio_high:.3f}",
            claimed,
            *(format_ms(time) for time in (latency.p50_ns, latency.p90_ns, latency.p99_ns)),
            *([] if latency.tokens_per_second is None else [f"{latency.tokens_per_second:,.0f}"]),
        )

    return _rows(report, cells)


def notes_table(report: BenchReport) -> Rows:
    """Rows under `NOTES`, in the same order; without those that have nothing to say.

    Nothing is to be claimed of the baseline against itself, so it has no reason why nothing is.
    """

    def cells(latency: Latency) -> tuple[str, ...]:
        unclaimed = latency.claim == "none" and latency is not report.control
        return latency.claim_reason if unclaimed else "", "; ".join(latency.flags)

    return [row for row in _rows(report, cells) if any(row[1:])]


def costs_table(report: BenchReport) -> Rows:
    """Rows under `COSTS`, in the same order."""
    return _rows(
        report,
        lambda latency: (
            f"{latency.bytes / 1024:.1f}",
            f"{latency.gzip_bytes / 1024:.1f}",
            format_ms(latency.load_ns),
            "-" if latency.peak_rss_bytes is None else f"{latency.peak_rss_bytes / 2**20:.0f}",
        ),
    )


def _rows(report: BenchReport, cells: Callable[[Latency], tuple[str, ...]]) -> Rows:
    named = [(CONTROL, report.control), *((latency.file, latency) for latency in report.rows)]
    mixed = len({latency.backend for _, latency in named}) > 1  # then each name says what ran it
    return [(f"{name}, {latency.backend}" if mixed else name, *cells(latency)) for name, latency in named]


def format_ms(nanoseconds: int | None) -> str:
    """Milliseconds with three significant digits, or a dash where there were too few runs."""
    if nanoseconds is None:
        return "-"
    milliseconds = nanoseconds / 1e6
    digits = 4 if milliseconds < 0.1 else 3 if milliseconds < 1 else 2 if milliseconds < 10 else 1
    return f"{milliseconds:.{digits}f}"
