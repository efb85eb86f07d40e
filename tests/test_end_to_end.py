"""Whole runs: what they leave, that a second one does nothing, and that killed ones go on as if nothing had happened."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from small_recipes import TARGETED, small_recipe

from tdcompress.artifacts import sealed
from tdcompress.cli import main
from tdcompress.codec import decode
from tdcompress.errors import ArtifactError, UserError
from tdcompress.files import sha256_file
from tdcompress.locks import hold
from tdcompress.onnxfile.inspect import inspect_onnx
from tdcompress.recipes.source import parse_recipe
from tdcompress.records.report import Report
from tdcompress.report.select import select_row
from tdcompress.runs.finished import join_files

ROOT = Path(__file__).resolve().parent.parent
ROW_FIELDS = {
    "id", "method", "options", "granularity", "fraction", "keep_per_filter", "scope", "seed", "accuracy_masked",
    "accuracy_shrunk", "accuracy_stored", "accuracy_onnx", "parameters_total", "parameters_nonzero", "sparsity_prunable",
    "sparsity_model", "onnx_bytes", "dense_onnx_bytes", "onnx_file", "latency",
}  # fmt: skip
LATENCY_FIELDS = {
    "host", "backend", "provider", "threads", "batch", "p50_ns", "ratio_to_dense", "ratio_low", "ratio_high", "claim",
}  # fmt: skip

# long enough to be killed in the middle; two exports, no benchmark
LONG = small_recipe(
    "long",
    f"""{TARGETED}
[train]
epochs = 12
batch_size = 64
optimizer = {{ name = "adam", lr = 0.002 }}
""",
)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copied(tiny_root, tmp_path):
    """An artifacts folder of the tiny run, to be changed."""
    return Path(shutil.copytree(tiny_root, tmp_path / "artifacts"))


@pytest.fixture(scope="module")
def report(tiny_run):
    return json.loads((tiny_run / "report.json").read_text())


def test_report_json_has_every_field_that_is_promised(report):
    assert [row["id"] for row in report["rows"]] == [
        "none-0.5-float32", "none-0.5-float16", "none-0.5-int8", "targeted-0.5",
    ]  # fmt: skip
    for row in report["rows"]:
        assert set(row) >= ROW_FIELDS
        assert row["latency"]
        for latency in row["latency"]:
            assert set(latency) >= LATENCY_FIELDS
            assert latency["claim"] in ("faster", "slower", "none")
            assert latency["ratio_low"] <= latency["ratio_to_dense"] <= latency["ratio_high"]
            assert latency["host"] in report["hosts"]
    assert decode(Report, report).run == "tiny"


def test_accuracies_agree_within_two_samples(report):
    two = 2.001 / report["test_samples"]
    for row in report["rows"]:
        deployed = row["accuracy_shrunk"] if row["granularity"] == "unit" else row["accuracy_stored"]
        assert abs(deployed - row["accuracy_masked"]) <= two
        if row["values"] == "float32":
            assert abs(row["accuracy_onnx"] - row["accuracy_masked"]) <= two
        assert (row["accuracy_shrunk"] is None) == (row["granularity"] == "weight")
        assert row["accuracy_dense"] > 0.3  # it learned something


def test_the_counts_of_a_row_are_those_of_its_network(report):
    row = report["rows"][0]
    assert row["parameters_total"] == 8 * 9 + 16 + 16 * 72 + 32 + 16 * 144 + 32 + 16 * 64 + 16 + 10 * 16 + 10
    assert row["sparsity_prunable"] == pytest.approx(
        (8 * 4 + 16 * 36 + 16 * 72 + 16 * 32) / (8 * 9 + 16 * 72 + 16 * 144 + 16 * 64)
    )
    assert row["parameters_nonzero"] <= row["parameters_total"] * (1 - row["sparsity_model"]) + 0.5


def test_bytes_are_bytes_on_disk(report, tiny_run):
    for row in report["rows"]:
        assert row["onnx_bytes"] == (tiny_run / row["onnx_file"]).stat().st_size
        assert row["dense_onnx_bytes"] == (tiny_run / "dense.onnx").stat().st_size
        assert row["onnx_bytes"] < row["dense_onnx_bytes"]
    assert {path.name for path in tiny_run.glob("*.onnx*")} == {
        "dense.onnx", "model.onnx", *(row["onnx_file"] for row in report["rows"]),
    }  # fmt: skip


def test_the_folder_holds_what_people_and_machines_read(tiny_run, report):
    names = {path.name for path in tiny_run.iterdir()}
    assert {"recipe.toml", "stages.json", "report.md", "report.html", "report.json", "samples.npz", "manifest.json"} <= names
    assert any(name.endswith(".png") for name in names)
    files = json.loads((tiny_run / "manifest.json").read_text())["files"]
    assert set(files) == names - {"manifest.json"}
    assert files == {name: sha256_file(tiny_run / name) for name in files}
    for stages in json.loads((tiny_run / "stages.json").read_text()).values():
        assert all((tiny_run / link / "manifest.json").is_file() for link in stages.values())


def test_the_resolved_recipe_is_the_same_recipe_with_defaults(tiny_run, tiny_text):
    kept = (tiny_run / "recipe.toml").read_text()
    assert tomllib.loads(kept)["train"]["l2"] == 0.0
    assert parse_recipe(kept).values["sweep"] == parse_recipe(tiny_text).values["sweep"]


def test_each_file_says_its_own_accuracy_and_what_feeds_it(tiny_run, report):
    for row in report["rows"]:
        metadata = {entry.key: entry.value for entry in onnx.load(tiny_run / row["onnx_file"]).metadata_props}
        assert json.loads(metadata["accuracy"]) == row["accuracy_onnx"]
        assert json.loads(metadata["classes"]) == [str(digit) for digit in range(10)]
        assert {"preprocessing", "recipe_key", "sparsity_model", "sparsity_prunable", "model"} <= set(metadata)


def test_shipped_files_are_the_stages_files_with_the_recipe_stamped_on(tiny_run, report):
    links = json.loads((tiny_run / "stages.json").read_text())
    deployed = {row["id"]: links[row["id"]]["shrink" if row["granularity"] == "unit" else "store"] for row in report["rows"]}
    for name, network in {"dense": links["dense"]["train"], **deployed}.items():
        exported = onnx.load(tiny_run / links[name]["export"] / "model.onnx")
        shipped = onnx.load(tiny_run / f"{name}.onnx")
        before, after = ({entry.key: entry.value for entry in model.metadata_props} for model in (exported, shipped))
        assert after == {**before, "recipe_key": report["recipe_key"]}
        assert "recipe_key" not in before
        assert before["network_key"] == Path(network).name
        for model in (exported, shipped):
            model.ClearField("metadata_props")
        assert exported == shipped


def test_model_onnx_is_the_selected_row_and_was_allowed_to_be(tiny_run, report):
    chosen = next(row for row in report["rows"] if row["id"] == report["selected"])
    assert (tiny_run / "model.onnx").read_bytes() == (tiny_run / chosen["onnx_file"]).read_bytes()
    dense = json.loads(next(e.value for e in onnx.load(tiny_run / "dense.onnx").metadata_props if e.key == "accuracy"))
    allowed = [row for row in report["rows"] if row["accuracy_onnx"] >= dense - 0.1 - 1e-9]
    assert chosen["onnx_bytes"] == min(row["onnx_bytes"] for row in allowed)


def test_a_rounded_file_that_loses_too_much_is_never_selected(report):
    import dataclasses

    rows = decode(Report, report).rows
    for worse in ("float16", "int8"):
        spoiled = [dataclasses.replace(row, accuracy_onnx=0.1, onnx_bytes=1) if row.values == worse else row for row in rows]
        chosen, _ = select_row(spoiled, max_accuracy_drop=0.5, smallest="onnx_bytes", reference_accuracy=0.7)
        assert chosen is not None
        assert next(row for row in spoiled if row.id == chosen).values != worse


def test_packing_is_left_out_of_every_format_when_the_recipe_says_never(copied, tiny_text, run_text):
    changes = {"name": "plain", "export.pack": "never", "bench.budget": "none"}
    done, _ = run_text(tiny_text, copied, changes)
    assert {row.values for row in done.report.rows} == {"float32", "float16", "int8"}
    for row in done.report.rows:
        assert set(inspect_onnx(done.folder / row.onnx_file).encodings) == {"dense"}


def test_every_file_passes_onnxs_full_check(tiny_run):
    for path in tiny_run.glob("*.onnx"):
        onnx.checker.check_model(onnx.load(path), full_check=True)


def test_samples_are_real_inputs_with_torchs_outputs(tiny_run, report):
    with np.load(tiny_run / "samples.npz", allow_pickle=False) as samples:
        names = set(samples.files)
        inputs, dense = samples["input"], samples["output/dense.onnx"]
    assert {"input", "output/dense.onnx", *(f"output/{row['onnx_file']}" for row in report["rows"])} <= names
    assert inputs.shape == (16, 1, 8, 8)
    session = onnxruntime.InferenceSession(str(tiny_run / "dense.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"input": inputs})[0], dense, rtol=1e-4, atol=1e-5)


def test_a_second_run_changes_nothing_and_says_so(copied, tiny_text, tmp_path, capsys):
    before = contents(copied / "tiny")
    (tmp_path / "tiny.toml").write_text(tiny_text)
    assert main(["run", str(tmp_path / "tiny.toml"), "--artifacts", str(copied), "--device", "cpu"]) == 0
    assert "nothing was run" in capsys.readouterr().out
    assert contents(copied / "tiny") == before


def test_another_recipe_of_the_same_name_is_refused_unless_told(copied, tiny_text, run_text):
    def run(**options):
        changes = {"bench.budget": "none", "export.select.max_accuracy_drop": 0.2, **options.pop("changes", {})}
        return run_text(tiny_text, copied, changes, **options)

    before = contents(copied / "tiny")
    with pytest.raises(UserError, match=r"holds the run of another recipe .* named 'tiny'; .*--set name=.*--replace"):
        run()
    assert contents(copied / "tiny") == before
    other, watcher = run(changes={"name": "other"})
    assert watcher.made == []  # every stage was there
    keys = [onnx.load(copied / name / "dense.onnx").metadata_props for name in ("tiny", "other")]
    assert [{e.key: e.value for e in each}["recipe_key"] for each in keys] == [
        json.loads((copied / "tiny" / "report.json").read_text())["recipe_key"],
        other.report.recipe_key,
    ]
    assert contents(copied / "tiny") == before
    (copied / "tiny" / "notes.txt").write_text("mine")
    replaced, _ = run(replace=True)
    assert replaced.report.recipe_key == other.report.recipe_key
    assert (copied / "tiny" / "notes.txt").read_text() == "mine"
    assert not any(row.latency for row in decode(Report, json.loads((copied / "tiny" / "report.json").read_text())).rows)
    assert sorted(path.name for path in copied.iterdir() if path.name != ".hashes.json") == [".locks", "other", "stages", "tiny"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_is_no_run_is_never_touched(copied, tiny_text, run_text, replace):
    (copied / "docs").mkdir()
    (copied / "docs" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="docs is there and holds no run"):
        run_text(tiny_text, copied, {"name": "docs"}, replace=replace)
    assert contents(copied / "docs") == {"thesis.txt": b"mine"}


def damage_manifest(folder):
    (folder / "manifest.json").write_text("{")


def damage_report(folder):
    (folder / "report.json").write_text("[]")


def damage_model(folder):
    data = bytearray((folder / "dense.onnx").read_bytes())
    data[100] ^= 1
    (folder / "dense.onnx").write_bytes(bytes(data))


def damage_manifest_type(folder):
    (folder / "manifest.json").write_text("[]")


@pytest.mark.parametrize("damage", [damage_manifest, damage_manifest_type, damage_report, damage_model], ids=lambda f: f.__name__)
def test_a_damaged_run_folder_is_laid_out_again(copied, tiny_text, run_text, damage):
    before = contents(copied / "tiny")
    damage(copied / "tiny")
    done, watcher = run_text(tiny_text, copied)
    assert watcher.made == []
    after = contents(copied / "tiny")
    assert set(after) == set(before)
    assert {name for name in before if after[name] != before[name]} <= {
        "report.json",
        "report.md",
        "report.html",
        "manifest.json",
    }
    assert done.report == decode(Report, json.loads(after["report.json"]))


def join_another_machine(folder):
    """The run's own benchmark, as if another machine had measured it."""
    (measured,) = (folder.parent / "stages" / "bench").glob("*/bench-*.json")
    bench = json.loads(measured.read_text())
    bench["benchmark"]["host"]["id"] = "elsewhere"
    timed = [row["onnx_file"] for row in json.loads((folder / "report.json").read_text())["rows"]]
    for row, file in zip(bench["benchmark"]["rows"], timed, strict=True):
        row.update(host="elsewhere", file=file, sha256=sha256_file(folder / file))
    bench["benchmark"]["control"].update(sha256=sha256_file(folder / "dense.onnx"))
    (folder / "elsewhere.json").write_text(json.dumps(bench))
    return join_files(folder, [folder / "elsewhere.json"])


def test_what_another_machine_measured_stays_when_the_folder_is_laid_out_again(copied, tiny_text, run_text):
    joined = join_another_machine(copied / "tiny")
    assert {latency.host for row in joined.rows for latency in row.latency} == {"elsewhere", *joined.hosts}
    damage_model(copied / "tiny")
    again, watcher = run_text(tiny_text, copied)
    assert watcher.made == []
    assert again.report.rows == joined.rows
    assert again.report.hosts == joined.hosts
    kept, _ = run_text(tiny_text, copied)
    assert kept.report == again.report


def test_a_file_that_nothing_can_read_says_which_folder_to_remove(copied, tiny_text, run_text):
    model = next((copied / "stages" / "export").glob("*/model.onnx"))
    good = model.read_bytes()
    model.write_bytes(b"garbage")
    manifest = json.loads((model.parent / "manifest.json").read_text())
    manifest["files"]["model.onnx"] = sha256_file(model)
    (model.parent / "manifest.json").write_text(json.dumps(sealed(manifest)))
    shutil.rmtree(copied / "tiny")
    with pytest.raises(ArtifactError, match="a truncated one") as stuck:
        run_text(tiny_text, copied)
    assert f"remove the folder {model.parent} and run the recipe again" in str(stuck.value)
    shutil.rmtree(model.parent)
    run_text(tiny_text, copied)
    assert model.read_bytes() == good


def test_a_damaged_stage_is_made_again_with_the_same_content(copied, tiny_text, run_text):
    (weights,) = (copied / "stages" / "store").glob("*/weights.npz")
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    _, watcher = run_text(tiny_text, copied)
    assert watcher.made == ["store"]
    assert weights.read_bytes() == good
    assert weights.parent.with_name(f"{weights.parent.name}.damaged").is_dir()


TOLD_AND_WAITING = """
import sys
from tdcompress.cli import main
arguments = ["run", sys.argv[1], "--artifacts", sys.argv[2]]
code = main(arguments)
print("exit code", code, file=sys.stderr)
sys.exit(main([*arguments, "--wait", "--minutes", "0.1"]))
"""


def test_a_second_run_of_a_folder_is_told_who_holds_it(tmp_path):
    (tmp_path / "long.toml").write_text(LONG)
    program = [sys.executable, "-c", TOLD_AND_WAITING, str(tmp_path / "long.toml"), str(tmp_path / "a")]
    with hold(tmp_path / "a" / ".locks" / "run-long", "it"):
        done = subprocess.run(
            program, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    said, code, *_ = done.stderr.splitlines()
    assert said.startswith(f"tdcompress: the run long is in use by process {os.getpid()} on ")
    assert code == "exit code 2"
    assert done.returncode == 75
    assert f"wait  0:00:00  the run long is in use by process {os.getpid()} on " in done.stdout


def wait_for_epochs(root, count, process):
    """Until that many epochs are in the metrics of the unfinished training."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        for path in root.glob("stages/train/*.partial/scratch/metrics.jsonl"):
            if len(path.read_text().splitlines()) >= count:
                return
        time.sleep(0.01)
    raise AssertionError("the training does not go on")


def test_killed_runs_go_on_bit_exactly(tmp_path, run_text):
    recipe, root = tmp_path / "long.toml", tmp_path / "killed"
    recipe.write_text(LONG)

    def start():
        return subprocess.Popen(
            [sys.executable, "-m", "tdcompress.cli", "run", str(recipe), "--artifacts", str(root), "--device", "cpu"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    epochs = 1
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)):
        with start() as process:
            wait_for_epochs(root, epochs, process)
            process.send_signal(number)
            _, said = process.communicate(timeout=120)
        assert process.returncode == code
        if code != -9:
            assert said.startswith("tdcompress: stopped after step ")
            assert "Traceback" not in said
        (metrics,) = root.glob("stages/train/*.partial/scratch/metrics.jsonl")
        epochs = len(metrics.read_text().splitlines()) + 2
    assert not list(root.glob("long/*"))

    resumed, watcher = run_text(LONG, root)
    whole, _ = run_text(LONG, tmp_path / "whole")
    assert watcher.made == ["train", "export", "prune", "store", "export"]
    for name in ("model.safetensors", "method.safetensors"):
        (one,), (other,) = ((base / "stages").glob(f"train/*/{name}") for base in (root, tmp_path / "whole"))
        assert sha256_file(one) == sha256_file(other)
    times = {"created", "train_seconds"}
    assert len(resumed.report.rows) == len(whole.report.rows) == 1
    for name in resumed.report.rows[0].__dataclass_fields__:
        if name not in times:
            assert getattr(resumed.report.rows[0], name) == getattr(whole.report.rows[0], name)
    for name in ("dense.onnx", resumed.report.rows[0].onnx_file, "samples.npz"):
        assert sha256_file(root / "long" / name) == sha256_file(tmp_path / "whole" / "long" / name)


def test_pixels_as_input_are_preprocessed_inside_the_file(copied, tiny_text, run_text):
    text = tiny_text[: tiny_text.index("[[sweep.case]]")]
    changes = {"name": "pixels", "export.input": "uint8", "bench.budget": "none"}
    done, watcher = run_text(text, copied, changes)
    assert "train" not in watcher.made
    session = onnxruntime.InferenceSession(str(done.folder / "dense.onnx"), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    assert (entry.type, entry.shape[1:]) == ("tensor(uint8)", [8, 8, 1])
    with np.load(done.folder / "samples.npz") as pixels, np.load(copied / "tiny" / "samples.npz") as floats:
        assert pixels["input"].dtype == np.uint8
        given = session.run(None, {"input": pixels["input"]})[0]
        np.testing.assert_allclose(given, floats["output/dense.onnx"], rtol=1e-4, atol=1e-4)
    metadata = {entry.key: entry.value for entry in onnx.load(done.folder / "dense.onnx").metadata_props}
    assert metadata["preprocessing_inside"] == "true"
