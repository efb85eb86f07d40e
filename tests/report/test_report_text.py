import pytest

from tdcompress.report import text


@pytest.mark.parametrize(
    ("bytes_", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (24_679, "24.1 KiB"),
        (1024**2 - 1, "1.00 MiB"),  # never "1024.0 KiB"
        (1_310_720, "1.25 MiB"),
        (3 * 1024**3, "3.00 GiB"),
    ],
)
def test_size_keeps_the_figure_short(bytes_, words):
    assert text.size(bytes_) == words


def test_shares_and_ratios():
    assert text.percent(0.97778) == "97.78"
    assert [text.short_percent(share) for share in (0, 0.9, 0.98951, 1)] == ["0 %", "90 %", "98.95 %", "100 %"]
    assert [text.ratio(value) for value in (1.04, 0.123, 0.0183)] == ["x1.04", "x0.12", "x0.018"]


@pytest.mark.parametrize(("ns", "words"), [(870, "870 ns"), (152_000, "152.0 µs"), (1_100_000, "1.10 ms"), (2.31e9, "2.31 s")])
def test_duration(ns, words):
    assert text.duration(ns) == words


def test_latency_shows_a_third_decimal_where_two_would_hide_the_side(make_latency):
    assert text.latency(make_latency("pc", 0.53, half=0.02)) == "0.53 [0.51, 0.55] faster"
    assert text.latency(make_latency("pc", 0.985, half=0.003, claim="faster")) == "0.985 [0.982, 0.988] faster"
    assert text.latency(make_latency("pc", 1.003)) == "1.003 [0.991, 1.015] no claim"
    assert text.latency(make_latency("pc", 0.05, half=0.002)) == "0.050 [0.048, 0.052] faster"
    assert text.latency(make_latency("pc", 1.5, half=0.1)) == "1.50 [1.40, 1.60] slower"
    assert text.latency(make_latency("pc", 0.94, half=0.056, claim="faster")) == "0.940 [0.884, 0.996] faster"
    assert text.latency(make_latency("pc", 1.06, half=0.056, claim="slower")) == "1.060 [1.004, 1.116] slower"


def test_setting_names_a_provider_only_where_it_is_not_the_cpu(make_latency):
    assert text.setting(make_latency("pc", 1.0)) == "onnxruntime, 1 thread, batch 1"
    on_gpu = make_latency("pc", 1.0, provider="CUDAExecutionProvider", threads=8, batch=32)
    assert text.setting(on_gpu) == "onnxruntime CUDA, 8 threads, batch 32"


def test_calls_that_say_tokens_are_told_by_their_number(make_latency):
    translated = make_latency("pc", 1.0, p50_ns=8e6, tokens=13)
    assert text.setting(translated) == "onnxruntime, 1 thread, batch 1, 13 tokens a call"
    assert text.tokens_per_second(translated) == "1,625"
    assert text.tokens_per_second(make_latency("pc", 1.0)) == "-"


def test_pruned_says_what_was_asked_for(make_row):
    assert text.pruned(make_row("none", 0.0, 0.9)) == "nothing"
    assert text.pruned(make_row("none", 0.875, 0.9, granularity="unit")) == "87.5 % of units"
    assert text.pruned(make_row("none", 0.99, 0.9, keep_per_filter=3)) == "all but 3 per filter"


def test_shorten_keeps_both_ends():
    assert text.shorten("targeted-0.9", 12) == "targeted-0.9"
    assert text.shorten("targeted-gamma0.9-unit-0.95", 12) == "target…-0.95"
    assert all(len(text.shorten("x" * 40, length)) == length for length in (1, 2, 3, 4, 5))


def test_patterns_are_named_as_such(make_row):
    assert text.pruned(make_row("none", 0.5, 0.9, granularity="2:4")) == "50 % of weights (2:4)"
    assert text.pruned(make_row("none", 0.5, 0.9, granularity="1x4")) == "50 % of 1x4 blocks"


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"accuracy": 0.9778}, "97.78%"),
        ({"accuracy": 0.3412, "measure": {"name": "BLEU"}}, "34.12"),
        ({}, ""),
        ({"accuracy": "0.5"}, ""),
        ({"accuracy": 0.5, "measure": {"title": "of another version"}}, ""),
        ({"accuracy": 0.5, "measure": 3}, ""),
    ],
)
def test_what_a_record_says_was_measured(record, said):
    assert text.recorded(record) == said


def test_names_that_share_a_reason_are_told_together():
    reasons = {"a": "it is small", "b": "it is an input", "c": "it is small", "d": "it is small", "e": "it is small"}
    assert text.by_reason("kept dense", reasons) == (
        "kept dense because it is an input: b",
        "kept dense because it is small: a, c, d and 1 more",
    )
    assert text.by_reason("kept dense", {}) == ()
