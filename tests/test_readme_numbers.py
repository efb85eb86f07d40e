"""The README's tables of measured numbers say what the reports in artifacts/reference say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tdcompress.bench.statistics import Ratio, widened_by_control
from tdcompress.codec import decode
from tdcompress.records.latency import RowLatency
from tdcompress.records.report import Report, Row
from tdcompress.report.text import latency, percent, ratio, size

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "artifacts" / "reference"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows_of_table(head: str) -> list[list[str]]:
    """The cells of the table whose head begins so, without emphasis."""
    _, _, text = README.partition(f"\n{head}")
    lines = text.partition("\n\n")[0].splitlines()[2:]
    assert lines, head
    return [[cell.strip(" *`") for cell in line.strip("|").split("|")] for line in lines]


def reported(name: str) -> dict[str, Row]:
    report = decode(Report, json.loads((REFERENCE / name / "report.json").read_text(encoding="utf-8")))
    return {row.id: row for row in report.rows}


def timed(row: Row, backend: str) -> RowLatency:
    (found,) = (each for each in row.latency if each.backend == backend)
    return found


def files(row: Row) -> list[str]:
    return [percent(row.accuracy_onnx), size(row.onnx_bytes), ratio(row.onnx_bytes / row.dense_onnx_bytes)]


def test_digits() -> None:
    rows = reported("digits")
    first, *others = rows_of_table("| row | pruned | as pruned, % | accuracy, % |")
    any_row = next(iter(rows.values()))
    assert first[3:6] == [percent(any_row.accuracy_dense), size(any_row.dense_onnx_bytes), "x1.00"]
    assert len(others) == 8
    for name, pruned, *cells in others:
        row = rows[name]
        assert pruned == f"{row.fraction:.0%} of {row.granularity}s".replace("%", " %")
        assert row.accuracy_before is not None
        assert cells == [percent(row.accuracy_before), *files(row), latency(timed(row, "onnxruntime"))]


def test_digits_in_fewer_bits() -> None:
    rows = reported("digits-values")
    table = rows_of_table("| `export.values` | what a kept weight takes |")
    assert len(table) == 5
    for values, _, *cells in table:
        assert cells == files(rows[f"targeted-weight-0.9-{values}"])


def test_lenet5() -> None:
    rows = reported("cifar10-lenet5-weight")
    engine = json.loads((REFERENCE / "engine" / "lenet-engine.json").read_text(encoding="utf-8"))["benchmark"]
    by_file = {found["file"]: found for found in engine["rows"]}
    table = rows_of_table("| pruned weights | none, % | targeted (0.75, 0.66), % |")
    assert len(table) == 5
    for pruned, none, targeted, file, under_onnxruntime, under_engine in table:
        share = f"{int(pruned.rstrip(' %')) / 100:g}"
        row = rows[f"targeted-{share}"]
        assert [none, targeted] == [percent(rows[f"none-{share}"].accuracy_onnx), percent(row.accuracy_onnx)]
        assert file == ratio(row.onnx_bytes / row.dense_onnx_bytes)
        assert under_onnxruntime == latency(timed(row, "onnxruntime"))
        if under_engine:
            assert under_engine == f"{_widened(by_file[f'targeted-{share}.onnx'], engine['control'])} faster"


def _widened(found: dict[str, Any], control: dict[str, Any]) -> str:
    """As benchmarks say it since the control widens intervals."""
    pair = [Ratio(value=each["ratio_to_dense"], low=each["ratio_low"], high=each["ratio_high"]) for each in (found, control)]
    wide = widened_by_control(*pair)
    return f"{wide.value:.3f} [{wide.low:.3f}, {wide.high:.3f}]"


def test_transformer() -> None:
    rows = reported("multi30k-transformer")
    table = rows_of_table("| pruned weights | none | targeted (0.75, 0.66) | targeted (0.9, 0.66) |")
    assert len(table) == 5
    for pruned, *bleu in table:
        share = f"{int(pruned.rstrip(' %')) / 100:g}"
        columns = ("none", "targeted-gamma0.75", "targeted-gamma0.9")
        assert bleu == [percent(rows[f"{column}-{share}"].accuracy_onnx) for column in columns]


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (0, "none-0"),
        (1, "targeted-weight-layer-gamma0.9-erk-0.9"),
        (2, "targeted-weight-layer-gamma0.95-erk-0.95"),
        (3, "targeted-weight-layer-gamma0.98-erk-0.98"),
        (4, "targeted-unit-group-gamma0.5-0.5"),
    ],
)
def test_resnet20(place: int, name: str) -> None:
    row = reported("cifar10-resnet20-best")[name]
    _, accuracy, bytes_, under_onnxruntime, under_engine = rows_of_table("| file | accuracy, % | bytes |")[place]
    assert [accuracy, bytes_] == files(row)[:2]
    assert under_onnxruntime == ("1" if place == 0 else latency(timed(row, "onnxruntime")))
    assert under_engine == latency(timed(row, "engine"))


def test_resnet20_with_other_seeds() -> None:
    rows = reported("cifar10-resnet20-best-seeds")
    at_90 = [percent(rows[f"targeted-seed{seed}-gamma0.9-0.9"].accuracy_onnx) for seed in range(3)]
    at_95 = [percent(rows[f"targeted-seed{seed}-gamma0.95-0.95"].accuracy_onnx) for seed in range(2)]
    assert f"90 % have {at_90[0]}, {at_90[1]} and {at_90[2]} %, two of 95 % have {at_95[0]} and {at_95[1]} %\n" in README


def test_resnet20_without_a_teacher() -> None:
    rows = reported("cifar10-resnet20-without-teacher")
    weak, strong = (percent(rows[f"targeted-l2_{l2}-0.9"].accuracy_onnx) for l2 in ("0.0002", "0.0005"))
    assert f"that row has {weak} % with an L2 of 2e-4, and {strong} % with 5e-4" in README
    choosing, log = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("choosing.md", "log.md"))
    assert f" | | {weak}, {strong} | | |\n" in choosing
    for l2, accuracy in (("2e-4", weak), ("5e-4", strong)):
        assert f"| targeted, 90 % pruned, L2 {l2} | {accuracy} | 89 |" in log


def test_resnet20_with_other_settings() -> None:
    untargeted = reported("cifar10-resnet20-best")["none-by-erk-recalibrate2048-0.9"]
    assert untargeted.accuracy_before is not None
    before, after = percent(untargeted.accuracy_before), percent(untargeted.accuracy_onnx)
    assert f"has {before} %, and {after} % with new BatchNorm statistics" in README
    papers = reported("cifar10-resnet20")
    weights, units = papers["targeted-weight-layer-gamma0.9-0.9"], papers["targeted-unit-group-gamma0.5-0.5"]
    kept, dense = [percent(row.accuracy_onnx) for row in (weights, units)], percent(papers["none-weight-layer-0"].accuracy_onnx)
    assert f"keep {kept[0]} % (weights) and {kept[1]} % (units) of {dense} %\n" in README


def test_only_lenet5_under_onnxruntime_was_timed_before_the_control_widened_intervals() -> None:
    def widened(name: str, backend: str = "onnxruntime") -> set[bool]:
        return {"widened by the baseline against itself" in timed(row, backend).reason for row in reported(name).values()}

    assert widened("digits") == widened("digits-values") == widened("cifar10-resnet20-best") == {True}
    assert widened("cifar10-resnet20-best", "engine") == {True}
    assert widened("cifar10-lenet5-weight") == {False}
    assert "The column of LeNet-5 under\nonnxruntime was measured before that was done" in README


def test_the_engine_on_two_machines() -> None:
    page = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    avx512, avx2 = (
        dict(re.findall(r"^\| (.+? \| \d+ %) (?:\| 1, 1 )?\| (\d+\.\d+ \[.+?\])", text.partition("\n\n")[0], re.MULTILINE))
        for text in page.split("\n| network | zeros |")[1:]
    )
    table = rows_of_table("| network, zeros | AVX2 alone (Zen 3) | AVX-512 (Zen 4) |")
    assert len(table) == 4
    for network, *fast in table:
        row = network.replace(", ", " | ")
        assert fast == [avx2[row], avx512[row]]


def test_images_a_second() -> None:
    (said,) = re.findall(r"trains ResNet-32 at ([\d,]+) images/s", README)
    printed = (REFERENCE / "h200" / "throughput.txt").read_text(encoding="utf-8")
    assert re.search(rf"^weight +compiled +bfloat16 +128 +1 +{said} ", printed, re.MULTILINE)
