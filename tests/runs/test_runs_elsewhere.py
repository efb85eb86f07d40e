"""A training made on a GPU is taken up on a machine without one: the key says what was asked for, the record what it became."""

import json
import shutil

from small_recipes import TARGETED, small_recipe

from tdcompress.artifacts import MANIFEST, sealed

RECIPE = small_recipe(
    "taken_up",
    f"""{TARGETED}
[train]
epochs = 1
batch_size = 64
precision = "auto"
""",
    bench="quick",
)
ON_A_GPU = {"device": "NVIDIA H100 80GB HBM3, bfloat16", "precision": "bfloat16", "threads": 192, "path": "fast"}


def as_on_a_gpu(training):
    """Let a training's record say what a GPU's would; its settings, and so its key, are the same."""
    manifest = json.loads((training / MANIFEST).read_text())
    assert manifest["settings"]["train"]["precision"] == "auto"
    manifest["record"] |= ON_A_GPU
    (training / MANIFEST).write_text(json.dumps(sealed(manifest)))


def test_a_training_of_a_gpu_is_pruned_exported_and_timed_on_a_cpu(tmp_path, run_text, short_benchmarks):
    there, here = tmp_path / "there", tmp_path / "here"
    first, _ = run_text(RECIPE, there, {"bench.budget": "none"})
    trainings = sorted((there / "stages" / "train").glob("*"))
    for training in trainings:
        as_on_a_gpu(training)
    shutil.copytree(there / "stages" / "train", here / "stages" / "train")
    with short_benchmarks():
        done, watcher = run_text(RECIPE, here)
    assert sorted((here / "stages" / "train").glob("*")) == [here / "stages" / "train" / each.name for each in trainings]
    assert "train" in watcher.kept
    assert "train" not in watcher.made
    assert {"prune", "store", "export", "bench"} <= set(watcher.made)
    for row, as_before in zip(done.report.rows, first.report.rows, strict=True):
        assert row.device == ON_A_GPU["device"]
        assert row.latency
        assert (row.accuracy_onnx, row.onnx_bytes) == (as_before.accuracy_onnx, as_before.onnx_bytes)
