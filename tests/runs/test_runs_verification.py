"""``verify`` as a library: what passes, and every way not to."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pair_sums
import pytest

from tdcompress.artifacts import sealed
from tdcompress.cli import main
from tdcompress.errors import ArtifactError, ModelError, UserError, VerificationError
from tdcompress.files import sha256_file
from tdcompress.runs.manifest import read_manifest
from tdcompress.runs.verification import verify_path, verify_with_samples


@pytest.fixture
def run(tiny_run, tmp_path):
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def rehash(run, **files):
    """A manifest that is right for what is there: damage that only the outputs can tell."""
    path = run / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = {name: sha256_file(run / name) for name in manifest["files"] if (run / name).is_file()} | files
    path.write_text(json.dumps(sealed(manifest)))


def test_a_run_passes_and_says_what_was_compared(run):
    said = []
    reports = verify_path(run, said.append)
    assert set(reports) == {path.name for path in run.glob("*.onnx")}
    assert reports["dense.onnx"].samples == 16
    assert reports["dense.onnx"].max_error <= reports["dense.onnx"].tolerance
    assert reports["none-0.5-float16.onnx"].samples == 16
    assert reports["none-0.5-int8.onnx"].samples == 16
    assert reports["none-0.5-int8.onnx"].tolerance == 4 / 128 * reports["none-0.5-int8.onnx"].max_output
    assert len(said) == 1 + len(reports)


def test_the_int8_file_of_a_run_is_the_same_with_saturating_sums(run):
    with np.load(run / "samples.npz") as arrays:
        inputs = arrays["input"]
    pair_sums.check_portable(onnx.load(run / "none-0.5-int8.onnx"), inputs)


def test_one_file_is_compared_where_its_samples_lie_beside_it(run, tmp_path):
    assert verify_path(run / "dense.onnx")["dense.onnx"].samples == 16
    alone = Path(shutil.copy(run / "dense.onnx", tmp_path / "alone.onnx"))
    assert verify_path(alone)["alone.onnx"].samples == 0


def test_another_network_under_the_same_name_is_found_by_its_outputs(run):
    shutil.copy(run / "targeted-0.5.onnx", run / "dense.onnx")
    rehash(run)
    with pytest.raises(VerificationError, match=r"dense\.onnx: outputs differ by"):
        verify_path(run)


def test_a_changed_int8_file_is_found_too(run):
    """Its tolerance is three thousand times wider, but no licence."""
    model = onnx.load(run / "none-0.5-int8.onnx")
    (scale,) = (tensor for tensor in model.graph.initializer if tensor.name == "input_scale")
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) / np.float32(2), scale.name))
    onnx.save(model, run / "none-0.5-int8.onnx")
    rehash(run)
    with pytest.raises(VerificationError, match=r"none-0\.5-int8\.onnx: outputs differ by .* \(0\.031 of the largest\)"):
        verify_path(run)


def test_a_changed_weight_is_found_by_the_outputs(run):
    model = onnx.load(run / "dense.onnx")
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, run / "dense.onnx")
    with pytest.raises(VerificationError, match="outputs differ by"):
        verify_with_samples(run / "dense.onnx")


def change(run, /, **values):
    """Other values in a run's manifest, which says that they are right."""
    path = run / "manifest.json"
    path.write_text(json.dumps(sealed(json.loads(path.read_text()) | values)))


def forget(run, name):
    """A manifest without one of its lines: nothing would vouch for that file."""
    path = run / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"][name]
    path.write_text(json.dumps(manifest))


def test_a_file_that_is_not_the_runs_is_said(run):
    (run / "mine.onnx").write_text("garbage")
    said = []
    assert "mine.onnx" not in verify_path(run, said.append)
    (line,) = (line for line in said if "mine.onnx" in line)
    assert "is not of this run" in line


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: (run / "manifest.json").unlink(), "is missing.*is .* a run's folder"),
        (lambda run: (run / "manifest.json").write_text("[]"), "damaged, or of another version"),
        (lambda run: (run / "manifest.json").write_text('{"files": {}}'), "names no format; is .* a run's folder"),
        (lambda run: change(run, format=1), "format 1, this version reads 2; run the recipe again"),
        (lambda run: change(run, recipe_key=3), "not the manifest of a run"),
        (lambda run: forget(run, "dense.onnx"), r"manifest\.json: is damaged \(its sha256"),
        (lambda run: change(run, files={}), r"manifest\.json: is damaged \(it does not name report\.json\)"),
        (lambda run: change(run, recipe_key="another"), r"it and report\.json are of different runs or recipes"),
        (lambda run: change(run, run="another"), r"it and report\.json are of different runs or recipes"),
        (lambda run: [path.unlink() for path in run.glob("*.onnx")] and rehash(run), r"it does not name .*\.onnx, which report"),
        (
            lambda run: change(run, files=read_manifest(run).files | {"../x": "0"}),
            "outside its folder; copy the folder again, or run the",
        ),
        (lambda run: (run / "dense.onnx").unlink(), r"dense\.onnx: is missing; copy the folder again, or run the recipe again"),
        (lambda run: (run / "report.json").unlink(), r"report\.json: is missing; copy the folder again, or run the recipe again"),
        (
            lambda run: (run / "dense.onnx").rename(run.parent / "x") and (run / "dense.onnx").symlink_to(run.parent / "x"),
            r"dense\.onnx: is a link that leads out of its folder; copy what it leads to in its place",
        ),
        (lambda run: (run / "samples.npz").write_bytes(b"no"), r"samples\.npz: is damaged"),
    ],
)
def test_a_damaged_folder_is_refused(run, damage, said):
    damage(run)
    with pytest.raises(ArtifactError, match=said):
        verify_path(run)


@pytest.mark.parametrize(
    ("stage", "named"), [("export", r"one of its files \(model\.onnx\), or a run's folder"), ("prune", "a run's folder")]
)
def test_the_folder_of_a_stage_is_told_from_that_of_a_run(tiny_root, stage, named):
    folder = next((tiny_root / "stages" / stage).glob("*/manifest.json")).parent
    with pytest.raises(
        UserError, match=rf"is the folder of a stage \({stage}\), not of a run; name {named}: `tdcompress status`"
    ):
        verify_path(folder)


def test_a_flipped_bit_is_found_in_every_shipped_file(run):
    generator = np.random.default_rng(0)
    for path in sorted(run.iterdir()):
        whole = path.read_bytes()
        for bit in generator.integers(0, 8 * len(whole), 200 if path.suffix == ".json" else 3):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(bytes(flipped))
            with pytest.raises(ArtifactError):
                verify_path(run)
        path.write_bytes(whole)
    verify_path(run)


def test_samples_that_cannot_be_read_are_a_failure_also_for_one_file(run):
    (run / "samples.npz").write_bytes(b"no")
    with pytest.raises(ArtifactError, match="not a readable file of samples"):
        verify_path(run / "dense.onnx")


def test_no_model_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_text("<html>")
    with pytest.raises(ModelError, match=r"m\.onnx"):
        verify_path(tmp_path / "m.onnx")


@pytest.fixture
def words(words_root, tmp_path):
    """A run of a translator: each row is two files, and all have one vocabulary."""
    return Path(shutil.copytree(words_root / "artifacts" / "words", tmp_path / "words"))


def test_every_file_of_a_translator_is_tried_on_recorded_sentences(words, capsys):
    reports = verify_path(words)
    assert {*reports} == {*(path.name for path in words.glob("*.onnx")), "vocabulary.model"}
    assert len(reports) == 2 * 4 + 1  # encoder and decoder step of dense, model and two rows
    assert {report.samples for name, report in reports.items() if name.endswith(".onnx")} == {4}
    assert all(0 <= report.max_error <= report.tolerance for name, report in reports.items() if name.endswith(".onnx"))
    vocabulary = reports["vocabulary.model"]
    assert (vocabulary.samples, vocabulary.pieces) == (40, 60)
    assert vocabulary.to_json()["file_bytes"] == (words / "vocabulary.model").stat().st_size
    assert main(["verify", str(words)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ok  vocabulary.model: loads, 60 pieces, 40 sentences cut as recorded" in lines
    assert sum(": valid, loads, 4 samples, largest difference " in line for line in lines) == 8
    assert main(["verify", str(words), "--json"]) == 0
    assert {*json.loads(capsys.readouterr().out)} == {*reports}


@pytest.mark.parametrize("name", ["dense.onnx", "model.decoder_step.onnx", "vocabulary.model", "none-0.3.decoder_step.onnx"])
def test_damage_of_any_file_of_a_translator_is_named(words, name):
    content = bytearray((words / name).read_bytes())
    content[len(content) // 2] ^= 1
    (words / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{name}: is damaged"):
        verify_path(words)


@pytest.mark.parametrize("name", ["dense.onnx", "dense.decoder_step.onnx"])
def test_a_changed_weight_of_either_file_is_found_by_its_outputs(words, name):
    model = onnx.load(words / name)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim == 2:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.01), tensor.name))
    onnx.save(model, words / name)
    rehash(words)
    with pytest.raises(VerificationError, match=rf"{name}, \w+: outputs differ by"):
        verify_path(words)
    with pytest.raises(VerificationError, match=rf"{name}, \w+: outputs differ by"):
        verify_path(words / name)


def test_another_vocabulary_is_found_by_what_it_makes_of_sentences(words):
    from words import ENGLISH, GERMAN

    from tdcompress.text.vocabulary import VocabularySettings, train_vocabulary

    text = [" ".join(ENGLISH), " ".join(GERMAN)] * 9
    (words / "vocabulary.model").write_bytes(train_vocabulary(text, VocabularySettings(size=40)))
    rehash(words)
    with pytest.raises(VerificationError, match=r"vocabulary\.model: cuts sentences into other pieces than recorded"):
        verify_path(words)


def test_without_sentencepiece_a_vocabulary_is_hashed_and_not_tried(words, command, without):
    done = command("verify", words, env=without("sentencepiece", "torch"))
    assert done.returncode == 0
    assert done.stdout.count("ok  ") == 8
    assert "vocabulary.model: whole, but not tried, which needs sentencepiece: pip install '.[translate]'" in done.stderr


def test_samples_without_what_a_file_takes_are_refused(words):
    with np.load(words / "samples.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    del arrays["dense.decoder_step.onnx/token"]
    np.savez(words / "samples.npz", **arrays)
    rehash(words)
    with pytest.raises(
        ModelError, match=r"samples\.npz: not a file of samples: it lacks the arrays 'dense.decoder_step.onnx/token'"
    ):
        verify_path(words)


def test_every_file_of_a_translator_is_inspected(words, capsys):
    assert main(["inspect", str(words), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {*found} == {path.name for path in words.glob("*.onnx")}
    step = found["model.decoder_step.onnx"]
    assert [value["name"] for value in step["inputs"]][:2] == ["token", "source"]
    assert step["metadata"]["network_key"] == found["model.onnx"]["metadata"]["network_key"]
