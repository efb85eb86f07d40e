"""A finished run, taken up again: when it counts as finished, and what is not believed of it."""

import copy
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tdcompress.cli import main
from tdcompress.codec import encode
from tdcompress.errors import ArtifactError, UserError
from tdcompress.locks import holder
from tdcompress.records.stages import AnalysisRecord
from tdcompress.runs.finished import compare_with, join_files
from tdcompress.runs.manifest import (
    read_links,
    read_manifest,
    read_report,
    save_links,
    save_manifest,
    vouched_report,
    whole_run,
    write_manifest,
)
from tdcompress.runs.status import run_table
from tdcompress.runs.unfinished import run_lock
from tdcompress.stores.folder import FolderStore


@pytest.fixture
def root(tiny_root, tmp_path):
    return Path(shutil.copytree(tiny_root, tmp_path / "artifacts"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_that_was_made_from_other_stages_is_laid_out_again(root, tiny_text, run_text):
    """As after a stage's VERSION rose: the recipe is the same, every new stage is there, and the folder is the old ones'."""
    run = root / "tiny"
    before, links = contents(run), read_links(run)
    save_links(run, links | {"dense": {**links["dense"], "export": "../stages/export/" + "0" * 16}})
    (run / "dense.onnx").write_bytes(b"of an older version")
    write_manifest(run, "tiny", read_manifest(run).recipe_key)
    done, watcher = run_text(tiny_text, root)
    assert (done.made, watcher.made) == (0, [])
    assert read_links(run) == links
    assert contents(run).keys() == before.keys()
    for name in ("dense.onnx", "model.onnx", "samples.npz", "stages.json"):
        assert contents(run)[name] == before[name]


def edit_report(run):
    path = run / "report.json"
    report = json.loads(path.read_text())
    report["rows"][0]["onnx_bytes"] = 1
    path.write_text(json.dumps(report))


def shorten_model(run):
    (run / "model.onnx").write_bytes((run / "model.onnx").read_bytes()[:-1])


@pytest.mark.parametrize(("damage", "name"), [(edit_report, "report.json"), (shorten_model, "model.onnx")])
def test_joining_does_not_make_damage_true(root, tmp_path, damage, name):
    (measured,) = (root / "stages" / "bench").glob("*/bench-*.json")
    run = root / "tiny"
    damage(run)
    before = contents(run)
    with pytest.raises(ArtifactError, match=rf"{name}: is damaged .*run the recipe again"):
        join_files(run, [measured])
    assert contents(run) == before


@pytest.fixture
def measured(root, monkeypatch):
    """A file of latencies that is taken for this run's: a note is what it adds."""
    monkeypatch.setattr("tdcompress.runs.finished.join_bench", lambda report, bench, files: replace(report, notes=("joined",)))
    (measured,) = (root / "stages" / "bench").glob("*/bench-*.json")
    return measured


@pytest.mark.parametrize("named_twice", [True, False])
def test_joining_replaces_the_whole_folder_or_nothing(root, measured, monkeypatch, named_twice):
    """Killed between report and manifest, a run would be damaged, and what was joined before lost when it is made anew."""

    def refused(*names):
        raise OSError(95, "Operation not supported")

    def killed(*names):
        raise KeyboardInterrupt

    run = root / "tiny"
    (run / "notes.txt").write_text("mine")
    if not named_twice:
        monkeypatch.setattr(Path, "hardlink_to", refused)
    before = contents(run)
    with monkeypatch.context() as patch:
        patch.setattr("tdcompress.runs.finished.save_manifest", killed)
        with pytest.raises(KeyboardInterrupt):
            join_files(run, [measured])
    assert contents(run) == before
    joined = join_files(run, [measured])
    assert joined.notes == ("joined",)
    assert contents(run).keys() == before.keys()
    assert contents(run)["model.onnx"] == before["model.onnx"]
    assert whole_run(run)[0] == joined


def test_a_run_is_brought_only_once_it_is_claimed_to_join_others(root, measured, monkeypatch):
    """Between the two another machine could join, and lose that when this one keeps the run as it was before."""
    owners = []
    monkeypatch.setattr(FolderStore, "bring_run", lambda self, name: owners.append(holder(run_lock(self.root, name))))
    assert main(["report", "tiny", "--artifacts", str(root), "--bench", str(measured)]) == 0
    assert main(["report", "tiny", "--artifacts", str(root)]) == 0
    assert [owner is not None for owner in owners] == [True, False]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_edited_report_is_not_shown(root, capsys, options):
    arguments = ["report", "tiny", "--artifacts", str(root), *options]
    assert main(arguments) == 0
    assert capsys.readouterr().out
    edit_report(root / "tiny")
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert "report.json: is damaged" in line


def latency(report):
    """What was measured first of the first row."""
    return report["rows"][0]["latency"][0]


def test_a_report_of_another_recipe_than_its_manifest_is_damage(root):
    run = root / "tiny"
    (row,) = run_table(root, [run], stages=True).rows
    assert row[1] == "complete"
    rewritten(run, lambda report: report.update(recipe_key="0" * 16))
    (row,) = run_table(root, [run], stages=True).rows
    assert "it and report.json are of different runs or recipes); run the recipe again to rebuild it" in row[1]


def test_a_run_that_is_laid_out_anew_at_this_moment_keeps_no_other_from_being_listed(root, monkeypatch):
    def gone(folder):
        raise UserError(f"{folder}: no such run")

    monkeypatch.setattr("tdcompress.runs.status.whole_run", gone)
    (row,) = run_table(root, [root / "tiny"], stages=True).rows
    assert row[:2] == ("tiny", f"damaged: {root / 'tiny'}: no such run")


def other_report(run):
    rewritten(run, lambda report: report.update(recipe_key="0" * 16))


def other_manifest(run):
    write_manifest(run, "tiny", "0" * 16)


def other_name(run):
    write_manifest(run, "another", read_manifest(run).recipe_key)


def no_files(run):
    save_manifest(run, replace(read_manifest(run), files={}))


@pytest.mark.parametrize("damage", [other_report, other_manifest, other_name, no_files])
def test_all_who_read_a_run_call_it_damaged_and_the_advice_mends_it(root, damage, tiny_text, run_text, capsys):
    run = root / "tiny"
    damage(run)
    (row,) = run_table(root, [run], stages=True).rows
    assert "is damaged" in row[1]
    assert row[1].endswith("run the recipe again to rebuild it")
    for command in ("verify", "report"):
        assert main([command, str(run)]) == 1
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        assert "is damaged" in line
    run_text(tiny_text, root)
    (row,) = run_table(root, [run], stages=True).rows
    assert row[1] == "complete"


def rewritten(run, change):
    """Another report, for which the run's manifest vouches: as another version, or a hand with a script, would leave it."""
    path = run / "report.json"
    report = json.loads(path.read_text())
    change(report)
    path.write_text(json.dumps(report))
    write_manifest(run, "tiny", read_manifest(run).recipe_key)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda report: report.pop("schema"), "names no schema"),
        (lambda report: report.update(schema=2), "schema 2, this version reads 1"),
        (lambda report: report.update(schema=True), "schema True, this version reads 1"),
        (lambda report: report.update(rows=[]), "selected: .* is none of its rows"),
        (lambda report: report["rows"].append(report["rows"][0]), "rows: two are called '"),
        (lambda report: report.update(selected="other"), "selected: 'other' is none of its rows"),
        (lambda report: report["rows"][0].update(accuracy_onnx=97.5), r"rows\[0\]\.accuracy_onnx: 97\.5 is out of range, 0 to 1"),
        (lambda report: report["rows"][0].update(fraction=-0.5), r"rows\[0\]\.fraction: -0\.5 is out of range, 0 to 1"),
        (lambda report: report["rows"][0].update(onnx_bytes=0), r"rows\[0\]\.onnx_bytes: 0 is out of range"),
        (lambda report: latency(report).update(threads=0), r"latency\[0\]\.threads: 0 is out of range, 1 or more"),
        (lambda report: latency(report).update(p50_ns=-1.0), r"latency\[0\]\.p50_ns: -1\.0 is out of range, 0 or more"),
        (
            lambda report: latency(report).update(ratio_low=2.0, ratio_high=1.0),
            r"latency\[0\]\.ratio_low: 2\.0 is above ratio_high",
        ),
    ],
)
def test_a_report_of_another_version_is_not_believed_though_its_manifest_vouches_for_it(root, capsys, change, said):
    rewritten(root / "tiny", change)
    assert main(["report", "tiny", "--artifacts", str(root)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"report\.json: damaged, or of another version \(.*{said}.*run the recipe again", line)
    (row,) = run_table(root, [root / "tiny"], stages=True).rows
    assert row[0] == "tiny"
    assert re.search(said, row[1])


def damaged(value):
    """A report's JSON with each of its keys, and of its first row's, left out or of another type."""
    for at in (lambda report: report, lambda report: report["rows"][0]):
        for key in at(value):
            for other in (None, "x", 0.5, [], {}):
                changed = copy.deepcopy(value)
                if other is None:
                    del at(changed)[key]
                else:
                    at(changed)[key] = other
                yield changed


def complaint(folder):
    """What is said of a report that is not read."""
    try:
        read_report(folder)
    except ArtifactError as error:
        return str(error)
    return None


def test_any_key_of_a_report_can_be_missing_or_of_another_type(tiny_run, tmp_path):
    said = []
    for changed in damaged(json.loads((tiny_run / "report.json").read_text())):
        (tmp_path / "report.json").write_text(json.dumps(changed))
        said.append(complaint(tmp_path))
    refused = [line for line in said if line]
    assert len(said) > len(refused) > 150
    known = re.compile(r".*report\.json: damaged, or of another version \(.+\); run the recipe again to rebuild it")
    assert [line for line in refused if not known.fullmatch(line)] == []


ANALYSED = AnalysisRecord(
    method="none",
    options={},
    seed=0,
    epochs=1,
    device="cpu",
    train_seconds=1.0,
    fraction=0.75,
    gradient_term=-0.02,
    curvature_term=0.12,
    measured=0.11,
    accuracy_unpruned=0.9,
    accuracy_pruned=0.8,
    bins=4,
    kept_bins=1,
    samples=100,
)


def test_records_of_an_analysis_are_compared_only_as_they_were_written(root):
    run = root / "tiny"
    path = run / "dependence.json"
    path.write_text(json.dumps([encode(ANALYSED)]))
    report, manifest = vouched_report(run)
    with pytest.raises(ArtifactError, match=r"manifest\.json: is damaged \(it does not name dependence\.json\)"):
        compare_with(run, report, "arxiv-1")
    write_manifest(run, "tiny", manifest.recipe_key)
    assert compare_with(run, report, "arxiv-1").blocks
    path.write_text(json.dumps([encode(replace(ANALYSED, curvature_term=9.0))]))
    with pytest.raises(ArtifactError, match=r"dependence\.json: is damaged"):
        compare_with(run, report, "arxiv-1")
    for content in ("[" * 200_000, "{}", '[{"method": "none"}]'):
        path.write_text(content)
        write_manifest(run, "tiny", manifest.recipe_key)
        with pytest.raises(ArtifactError, match=r"dependence\.json: damaged, or of another version"):
            compare_with(run, report, "arxiv-1")
