"""Numbers as people read them: one function per quantity, used by every table, sentence and plot."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from tdcompress.codec import decode
from tdcompress.records.latency import RowLatency
from tdcompress.records.measures import ACCURACY, Measure
from tdcompress.records.report import Row
from tdcompress.report.zeros import dense_row, pruned_share, trained_zeros

_NAMES = 3  # of what shares a reason; how many are left is said
_CLAIM_WORDS = {"faster": "faster", "slower": "slower", "none": "no claim"}


def percent(share: float, decimals: int = 2) -> str:
    """A share (0..1) as percent without the sign: 0.9778 is "97.78"."""
    return f"{100 * share:.{decimals}f}"


def number(value: float, measure: Measure) -> str:
    """What was measured (0..1), without its unit: "97.78"."""
    return f"{measure.scale * value:.2f}"


def figure(value: float, measure: Measure) -> str:
    """What was measured (0..1), with its unit where it has one: "97.78 %", "34.12"."""
    return f"{number(value, measure)} {measure.unit}".rstrip()


def mean_of_seeds(values: Sequence[float], measure: Measure, beside: str = "") -> str:
    """What was measured (0..1) of each seed: the figure of their mean, behind it of how many and from where to where.

    Args:
        values: of one seed or several.
        measure: what was measured.
        beside: what else to say behind the figure; may be empty.
    """
    seeds = f"mean of {len(values)} seeds, {number(min(values), measure)} to {number(max(values), measure)}"
    behind = "; ".join(filter(None, (seeds if len(values) > 1 else "", beside)))
    return figure(fmean(values), measure) + (f" ({behind})" if behind else "")


def recorded(record: Mapping[str, object]) -> str:
    """What a stage's record in JSON says was measured: "97.78%"; nothing where it says none, or a measure of another version."""
    value = record.get("accuracy")
    if not isinstance(value, float):
        return ""
    try:
        measure = decode(Measure, record["measure"], "measure") if "measure" in record else ACCURACY
    except ValueError:
        return ""
    return figure(value, measure).replace(" %", "%")


def titled(words: str, measure: Measure) -> str:
    """The title of a column of such numbers: "accuracy, %"."""
    return f"{words}, {measure.unit}" if measure.unit else words


def capital(words: str) -> str:
    """The same at the beginning of a sentence; other letters stay as they are."""
    return words[:1].upper() + words[1:]


def by_reason(what: str, reasons: Mapping[str, str]) -> tuple[str, ...]:
    """Names that share a reason in one sentence: "kept dense because it is an input: a, b, c and 2 more".

    Args:
        what: all of them are.
        reasons: by name.
    """
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return tuple(f"{what} because {reason}: {_first(names[reason])}" for reason in sorted(names))


def _first(names: Sequence[str]) -> str:
    told, more = ", ".join(names[:_NAMES]), len(names) - _NAMES
    return f"{told} and {more} more" if more > 0 else told


def short_percent(share: float) -> str:
    """A share (0..1) with no more decimals than it needs: 0.9 is "90 %", 0.98951 is "98.95 %"."""
    return f"{f'{100 * share:.2f}'.rstrip('0').rstrip('.')} %"


def size(bytes_: float) -> str:
    """Bytes in the unit that keeps the figure short: "812 B", "24.1 KiB", "1.25 MiB"."""
    if bytes_ < 1024:
        return f"{bytes_:.0f} B"
    if bytes_ < 1023.95 * 1024:
        return f"{bytes_ / 1024:.1f} KiB"
    if bytes_ < 1023.995 * 1024**2:
        return f"{bytes_ / 1024**2:.2f} MiB"
    return f"{bytes_ / 1024**3:.2f} GiB"


def ratio(value: float) -> str:
    """A ratio to the dense network: "x0.18", "x0.018"."""
    return f"x{value:.2f}" if value >= 0.1 else f"x{value:.3f}"


def duration(ns: float) -> str:
    """A time: "870 ns", "152.0 µs", "1.10 ms", "2.31 s"."""
    if ns < 1e3:
        return f"{ns:.0f} ns"
    if ns < 1e6:
        return f"{ns / 1e3:.1f} µs"
    if ns < 1e9:
        return f"{ns / 1e6:.2f} ms"
    return f"{ns / 1e9:.2f} s"


def interval(latency: RowLatency) -> str:
    """Time / dense time with its 95 % interval: "0.53 [0.52, 0.55]".

    A third decimal is shown near 1 and below 0.1, where two would hide on which side of 1 the ratio or an end of its interval is,
    or how small it is.
    """
    ratio, ends = latency.ratio_to_dense, (latency.ratio_low, latency.ratio_high)
    near_one = abs(ratio - 1) < 0.05 or any(abs(end - 1) < 0.005 for end in ends)
    decimals = 3 if near_one or ratio < 0.1 else 2
    middle, low, high = (f"{value:.{decimals}f}" for value in (ratio, *ends))
    return f"{middle} [{low}, {high}]"


def latency(latency: RowLatency) -> str:
    """Interval and claim: "0.53 [0.52, 0.55] faster"."""
    return f"{interval(latency)} {_CLAIM_WORDS[latency.claim]}"


def setting(latency: RowLatency) -> str:
    """What ran the file, without the host: "onnxruntime, 1 thread, batch 1"; and how many tokens a call says, if any."""
    provider = latency.provider.removesuffix("ExecutionProvider")
    runtime = latency.backend if provider in ("", "CPU", latency.backend) else f"{latency.backend} {provider}"
    tokens = "" if latency.tokens is None else f", {latency.tokens} tokens a call"
    return f"{runtime}, {latency.threads} thread{'s' * (latency.threads != 1)}, batch {latency.batch}{tokens}"


def tokens_per_second(latency: RowLatency) -> str:
    """Of the median call: "1,830"; a dash where calls say no tokens."""
    return "-" if latency.tokens_per_second is None else f"{latency.tokens_per_second:,.0f}"


def named_method(name: str, options: Mapping[str, object]) -> str:
    """A method as the papers write it: "targeted(alpha=0.66,gamma=0.75)"."""
    inside = ",".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in sorted(options.items())
    )
    return f"{name}({inside})" if inside else name


def plural(granularity: str) -> str:
    """What is pruned, in words: "weights", "2:4 weights"."""
    return {"2:4": "2:4 weights", "1x4": "1x4 blocks"}.get(granularity, f"{granularity}s")


def pruned(row: Row) -> str:
    """What is pruned: "90 % of weights", "all but 3 per filter", "nothing"; more than was asked where more is zero."""
    if row.keep_per_filter is not None:
        return f"all but {row.keep_per_filter} per filter"
    if share := pruned_share(row):
        return f"{short_percent(share)} of {'weights (2:4)' if row.granularity == '2:4' else plural(row.granularity)}"
    return f"no {plural(row.granularity)}; trained to {zeros} zeros" if (zeros := _zeros(row)) else "nothing"


def dense(rows: Sequence[Row]) -> str:
    """The network of dense.onnx beside its number: "dense", or "dense (89.81 % zeros)" where its training left such."""
    zeros = _zeros(dense_row(rows)) if rows else ""
    return f"dense ({zeros} zeros)" if zeros else "dense"


def unpruned(rows: Sequence[Row], seeds: int) -> str:
    """The same network in a sentence: "the unpruned network, mean of 3 seeds", or "the network of dense.onnx (89.81 % zeros)"."""
    zeros = _zeros(dense_row(rows))
    network = f"the network of dense.onnx ({zeros} zeros)" if zeros else "the unpruned network"
    return f"{network}, mean of {seeds} seeds" if seeds > 1 else network


def _zeros(row: Row) -> str:
    """Share of the prunable weights that its training left at zero; the empty word where none are."""
    zeros = trained_zeros(row)
    return short_percent(zeros) if zeros else ""


def below_table(key: str) -> str:
    """What a dotted key of a recipe is called without its table, so that it is known which one is meant.

    "train.optimizer.lr" is "lr", "train.lr_schedule.name" is "lr_schedule", and another key beside that is "lr_warmup_share".
    """
    *_, table, last = key.split(".")
    return table if last == "name" else f"lr_{last}" if table == "lr_schedule" else last


def shorten(name: str, at_most: int) -> str:
    """A name no longer than this, its middle left out: what tells rows apart stands at both ends."""
    if len(name) <= at_most:
        return name
    tail = (at_most - 1) // 2
    return f"{name[: at_most - 1 - tail]}…{name[len(name) - tail :]}"
