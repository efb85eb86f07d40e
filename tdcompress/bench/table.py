"""A benchmark as a terminal table: column names and rows of strings, nothing printed."""

from tdcompress.bench.report import BenchReport, Latency

COLUMNS = (
    "file",
    "KiB",
    "gzip KiB",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "time / dense",
    "95 % interval",
    "claim",
    "load ms",
    "peak MiB",
    "flags",
)
CONTROL = "dense against itself"


def latency_table(report: BenchReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Column names and rows: the control first, then the files in the order asked for."""
    control = _row(CONTROL, report.control)
    return COLUMNS, [control, *(_row(latency.file, latency) for latency in report.rows)]


def format_ms(nanoseconds: int | None) -> str:
    """Milliseconds with three significant digits, or a dash where there were too few runs."""
    if nanoseconds is None:
        return "-"
    milliseconds = nanoseconds / 1e6
    digits = 4 if milliseconds < 0.1 else 3 if milliseconds < 1 else 2 if milliseconds < 10 else 1
    return f"{milliseconds:.{digits}f}"


def _row(name: str, latency: Latency) -> tuple[str, ...]:
    return (
        name,
        f"{latency.bytes / 1024:.1f}",
        f"{latency.gzip_bytes / 1024:.1f}",
        format_ms(latency.p50_ns),
        format_ms(latency.p90_ns),
        format_ms(latency.p99_ns),
        f"{latency.ratio_to_dense:.3f}",
        f"{latency.ratio_low:.3f} .. {latency.ratio_high:.3f}",
        latency.claim,
        format_ms(latency.load_ns),
        f"{latency.peak_rss_bytes / 2**20:.0f}",
        "; ".join(latency.flags) or "-",
    )
