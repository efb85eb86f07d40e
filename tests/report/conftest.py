"""A report as a digits run would give it: plausible sizes, a collapse of the plain network, two hosts."""

import math
from collections.abc import Callable

import pytest

from tdcompress.records.latency import RowLatency
from tdcompress.records.report import Report, Row

PRUNABLE, OTHER = 88_000, 1_200
FRACTIONS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98)
ACCURACIES = {
    "none": (0.9861, 0.9833, 0.8222, 0.4639, 0.1917, 0.1028),
    "dropout": (0.9806, 0.9778, 0.9306, 0.7583, 0.3528, 0.1472),
    "targeted": (0.9833, 0.9833, 0.9833, 0.9806, 0.9611, 0.6306),
}
OPTIONS = {
    "none": {},
    "dropout": {"alpha": 0.594},
    "targeted": {"gamma": 0.9, "alpha": 0.66, "schedule": "constant"},
}
UNIT_WHY = "Units were removed: fewer channels are computed, so any runtime can be faster."
WEIGHT_WHY = "Single weights are zero, and onnxruntime computes with zeros as with any number: the file is smaller, not faster."
HOSTS = {
    "xeon-platinum-8481c-2c-3f9a1c": {
        "id": "xeon-platinum-8481c-2c-3f9a1c",
        "cpu": "Intel(R) Xeon(R) Platinum 8481C",
        "cores": 2,
        "memory_bytes": 8_345_000_000,
        "flags": ["avx2", "avx512f", "amx_tile"],
        "governor": None,
    },
    "cortex-a76-4c-77ab02": {"id": "cortex-a76-4c-77ab02", "cpu": "Cortex-A76", "cores": 4, "memory_bytes": 8_200_000_000},
}


def _row(method: str, fraction: float, accuracy: float, *, granularity: str = "weight", latency=(), **changes) -> Row:
    kept = PRUNABLE - math.floor(fraction * PRUNABLE)
    bound = 4 * (kept + OTHER) + (PRUNABLE * _entropy(kept / PRUNABLE)) / 8
    fields = {
        "id": f"{method}-{fraction:g}",
        "method": method,
        "options": OPTIONS[method],
        "granularity": granularity,
        "fraction": fraction,
        "keep_per_filter": None,
        "scope": "layer",
        "seed": 0,
        "epochs": 40,
        "train_seconds": 12.5,
        "device": "cpu",
        "accuracy_dense": ACCURACIES[method][0],
        "accuracy_masked": accuracy,
        "accuracy_shrunk": None if granularity == "weight" else accuracy,
        "accuracy_stored": accuracy if granularity == "weight" else None,
        "accuracy_onnx": accuracy,
        "parameters_total": PRUNABLE + OTHER,
        "parameters_nonzero": kept + OTHER,
        "sparsity_prunable": 1 - kept / PRUNABLE,
        "sparsity_model": 1 - (kept + OTHER) / (PRUNABLE + OTHER),
        "macs": 1_250_000,
        "values": "float32",
        "onnx_file": f"{method}-{fraction:g}.onnx",
        "onnx_bytes": round(bound * 1.04) + 2_600,
        "dense_onnx_bytes": 4 * (PRUNABLE + OTHER) + 3_100,
        "bound_bytes": bound,
        "stored_bytes": kept * 5 + 4 * OTHER if granularity == "weight" else None,
        "why": WEIGHT_WHY if granularity == "weight" else UNIT_WHY,
        "latency": latency,
    }
    return Row(**(fields | changes))


def _latency(host: str, ratio: float, half: float = 0.012, claim: str | None = None, **changes) -> RowLatency:
    if claim is None:
        claim = "faster" if ratio + half < 0.99 else "slower" if ratio - half > 1.01 else "none"
    fields = {
        "host": host,
        "backend": "onnxruntime",
        "provider": "CPUExecutionProvider",
        "threads": 1,
        "batch": 1,
        "p50_ns": 152_000 * ratio,
        "ratio_to_dense": ratio,
        "ratio_low": ratio - half,
        "ratio_high": ratio + half,
        "claim": claim,
        "reason": "the interval reaches within 1 % of 1" if claim == "none" else "",
    }
    return RowLatency(**(fields | changes))


def _report(rows: tuple[Row, ...], **changes) -> Report:
    fields = {
        "run": "digits",
        "created": "2025-01-02T03:04:05Z",
        "recipe_key": "0123456789abcdef",
        "data": "digits",
        "model": "digits_cnn",
        "classes": tuple("0123456789"),
        "test_samples": 360,
        "rows": rows,
        "selected": None,
        "notes": (),
        "hosts": {},
        "versions": {"python": "3.11.9", "torch": "2.11.0", "onnxruntime": "1.22.0"},
    }
    return Report(**(fields | changes))


def _entropy(share: float) -> float:
    return 0.0 if share in (0.0, 1.0) else -share * math.log2(share) - (1 - share) * math.log2(1 - share)


def _latencies(fraction: float, shift: float) -> tuple[RowLatency, ...]:
    server, board = HOSTS
    ratio = 1.003 - 0.85 * fraction + shift
    return (_latency(server, ratio), _latency(board, 1.08 * ratio, half=0.03))


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """Method, fraction, accuracy, and any field by name."""
    return _row


@pytest.fixture
def make_latency() -> Callable[..., RowLatency]:
    """Host, ratio, half the width of its interval, and any field by name."""
    return _latency


@pytest.fixture
def make_report() -> Callable[..., Report]:
    """Rows, and any field by name."""
    return _report


@pytest.fixture
def report() -> Report:
    """Weights on a server and a board: 18 rows; targeted-0.9 was chosen."""
    rows = tuple(
        _row(method, fraction, accuracy, granularity="unit", latency=_latencies(fraction, 0.01 * place))
        for place, method in enumerate(ACCURACIES)
        for fraction, accuracy in zip(FRACTIONS, ACCURACIES[method], strict=True)
    )
    return _report(
        rows,
        selected="targeted-0.9",
        notes=("targeted-0.9 has the smallest onnx_bytes among the rows within 1 point of the dense 98.61 %.",),
        hosts=HOSTS,
    )


@pytest.fixture
def small_report() -> Report:
    """Weights pruned without targeting, units with it; one latency each: for golden files."""
    server = next(iter(HOSTS))
    return _report(
        (
            _row("none", 0.0, 0.9861, latency=(_latency(server, 1.003),)),
            _row("none", 0.9, 0.4639, latency=(_latency(server, 0.996),)),
            _row("targeted", 0.9, 0.9806, granularity="unit", macs=212_000, latency=(_latency(server, 0.53),)),
        ),
        selected="targeted-0.9",
        hosts={server: HOSTS[server]},
    )
