import dataclasses
import json
import subprocess
import sys

import pytest

from tdcompress.codec import decode, decode_file
from tdcompress.errors import ArtifactError
from tdcompress.records.report import Report
from tdcompress.report import canvas, plots
from tdcompress.report.write import WITHOUT_PLOTS, report_to_json, write_report

PNG = b"\x89PNG\r\n\x1a\n"


def test_everything_is_written_and_the_record_reads_back(report, tmp_path):
    folder = tmp_path / "run"
    files = write_report(report, folder)

    plots_ = [f"{name}.{kind}" for name in ("accuracy", "bytes", "latency") for kind in ("svg", "png")]
    assert [path.name for path in files] == [*plots_, "report.md", "report.html", "report.json"]
    assert sorted(folder.iterdir()) == sorted(files)  # no temporary file stays
    assert decode(Report, json.loads((folder / "report.json").read_text()), "report.json") == report
    for name in ("accuracy", "bytes", "latency"):
        assert (folder / f"{name}.png").read_bytes().startswith(PNG)
        assert f"]({name}.png)" in (folder / "report.md").read_text()
        assert (folder / f"{name}.svg").read_text().rstrip().endswith("</svg>")


def test_the_same_report_gives_the_same_bytes(small_report, tmp_path):
    first, second = (write_report(small_report, tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_report_read_back_is_written_in_the_same_words(report, tmp_path):
    """Keys are sorted in report.json, so no text may depend on the order in which options or facts were given."""
    backwards = [dataclasses.replace(row, options=dict(reversed(row.options.items()))) for row in report.rows]
    hosts = {name: dict(reversed(facts.items())) for name, facts in report.hosts.items()}
    given = dataclasses.replace(report, rows=tuple(backwards), hosts=hosts)
    again = decode(Report, json.loads(report_to_json(given)), "report.json")
    first, second = (write_report(each, tmp_path / name) for name, each in (("a", given), ("b", again)))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_json_is_sorted_and_refuses_what_json_has_no_word_for(small_report):
    text = report_to_json(small_report)
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    bad = dataclasses.replace(small_report, rows=(dataclasses.replace(small_report.rows[2], train_seconds=float("nan")),))
    with pytest.raises(TypeError, match="nan cannot be written as JSON"):
        report_to_json(bad)


def test_without_matplotlib_it_says_so(report, tmp_path, monkeypatch):
    monkeypatch.setattr(canvas, "available", lambda: False)
    files = write_report(report, tmp_path)
    assert [path.name for path in files] == ["report.md", "report.html", "report.json"]
    assert WITHOUT_PLOTS in (tmp_path / "report.md").read_text()
    assert WITHOUT_PLOTS in (tmp_path / "report.html").read_text()
    assert "<svg" not in (tmp_path / "report.html").read_text()


def test_no_rows_and_no_latency(make_row, make_report, tmp_path):
    assert len(write_report(make_report(()), tmp_path / "empty")) == 3
    files = write_report(make_report((make_row("none", 0.5, 0.9),)), tmp_path / "one")
    assert "latency.png" not in {path.name for path in files}
    assert "Latency was not measured." in (tmp_path / "one" / "report.md").read_text()


def test_plots_of_odd_reports(make_row, make_latency, make_report):
    everything = make_row("none", 1.0, 0.1, bound_bytes=0.0, latency=(make_latency("pc", 0.02, half=0.001),))
    many = tuple(
        make_row("targeted", fraction, 0.9, id=f"{gamma}-{fraction}-{seed}", options={"gamma": gamma}, seed=seed)
        for gamma in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
        for fraction in (0.0, 0.5)
        for seed in (0, 1)
    )
    assert len(plots.draw(make_report((everything,)))) == 3
    assert len(plots.draw(make_report(many))) == 2
    long = make_row("none", 0.5, 0.9, id="n" * 60, latency=(make_latency("h" * 60, 30.0),))
    assert len(plots.draw(make_report((long,)))) == 3


def test_the_report_needs_neither_torch_nor_matplotlib(report, tmp_path):
    record = tmp_path / "given.json"
    record.write_text(report_to_json(report))
    script = """
import json, pathlib, sys
for name in ("torch", "matplotlib"):
    sys.modules[name] = None
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "matplotlib" else find_spec(name, *rest)
from tdcompress.codec import decode
from tdcompress.records.report import Report
from tdcompress.report import join, select, tables, terminal
from tdcompress.report.write import write_report
folder = pathlib.Path(sys.argv[1])
report = decode(Report, json.loads((folder / "given.json").read_text()))
print(*(path.name for path in write_report(report, folder)))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["report.md", "report.html", "report.json"]


@pytest.mark.parametrize("field", ["onnx_bytes", "dense_onnx_bytes"])
@pytest.mark.parametrize("size", [0, -5])
def test_a_report_with_a_file_of_no_bytes_is_damaged(report, tmp_path, field, size):
    values = json.loads(report_to_json(report))
    values["rows"][0][field] = size
    (tmp_path / "report.json").write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match=rf"report\.json: damaged.*rows\[0\]\.{field}: {size} is out of range, 1 or more"):
        decode_file(Report, tmp_path / "report.json")
