"""What a run ships translates without torch, from Python; and every way in which it cannot."""

import json
import shutil
import subprocess
import sys

import onnx
import pytest

import tdcompress as tdc
from tdcompress.errors import ArgumentError, DataError, ModelError, UserError, VerificationError
from tdcompress.files import sha256_file
from tdcompress.onnxfile.load import load_model, save_model
from tdcompress.onnxfile.metadata import get_metadata, set_metadata
from tdcompress.runs.manifest import read_links, read_manifest, read_report
from tdcompress.runs.translator import find_encoder
from tdcompress.text.bleu import bleu

SHIPPED = ("model.onnx", "model.decoder_step.onnx", "vocabulary.model")
TRANSLATE = """
import sys
import tdcompress as tdc
translate = tdc.Translator(sys.argv[1])
for line in translate(open(sys.argv[2], encoding="utf-8").read().splitlines(), beam=1):
    print(line)
loaded = {"torch", "scipy", "sacrebleu"} & {name.partition(".")[0] for name in sys.modules}
print("loaded", sorted(loaded), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def run(words_root):
    return words_root / "artifacts" / "words"


@pytest.fixture
def copied(run, tmp_path):
    """The three files alone, as somebody copies them; no manifest is beside them."""
    for name in SHIPPED:
        shutil.copy(run / name, tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def corpus(words_root):
    return words_root / "corpus"


def test_every_file_is_the_stages_with_the_recipe_stamped_on(run):
    report, named, links = read_report(run), read_manifest(run).files, read_links(run)
    exports = {name: run / links[name]["export"] for name in ("dense", *(row.id for row in report.rows))}
    exports["model"] = exports[report.selected]
    stages_files = {
        f"{name}{end}": export / own
        for name, export in exports.items()
        for end, own in ((".onnx", "model.onnx"), (".decoder_step.onnx", "decoder_step.onnx"))
    }
    assert {path.name for path in run.glob("*.onnx")} == stages_files.keys()
    for name, path in stages_files.items():
        assert named[name] == sha256_file(run / name)
        before, after = onnx.load(path), onnx.load(run / name)
        assert get_metadata(after) == {**get_metadata(before), "recipe_key": report.recipe_key}
        assert "recipe_key" not in get_metadata(before)
        for model in (before, after):
            model.ClearField("metadata_props")
        assert before == after


def test_the_reports_bytes_are_those_of_all_files_that_a_row_ships(run):
    report = read_report(run)
    for row in report.rows:
        names = (row.onnx_file, f"{row.id}.decoder_step.onnx", "vocabulary.model")
        assert row.onnx_bytes == sum((run / name).stat().st_size for name in names)
        dense = ("dense.onnx", "dense.decoder_step.onnx", "vocabulary.model")
        assert row.dense_onnx_bytes == sum((run / name).stat().st_size for name in dense)


def test_three_files_translate_on_a_machine_without_torch(copied, run, corpus, without):
    """What the report promises is what a person gets there."""
    environment = without("torch", "torchvision", "onnxscript", "safetensors", "sklearn", "matplotlib", "scipy", "sacrebleu")
    done = subprocess.run(
        [sys.executable, "-c", TRANSLATE, str(copied), str(corpus / "test.en")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "loaded []\n")
    report = read_report(run)
    (row,) = (row for row in report.rows if row.id == report.selected)
    found = bleu(done.stdout.splitlines(), (corpus / "test.de").read_text().splitlines())
    assert row.accuracy_onnx > 0.3  # an untrained one has about 0
    assert found.score / 100 == pytest.approx(row.accuracy_onnx, abs=1e-6)


def test_a_run_an_export_and_a_file_are_the_same_translator(run, copied, words_root):
    sentences = ["one two three four", "six six one five"]
    report = read_report(run)
    expected = tdc.Translator(run)(sentences)
    assert tdc.Translator(run, row=report.selected)(sentences) == expected
    assert tdc.Translator(str(copied / "model.onnx"))(sentences) == expected
    assert tdc.Translator(run / f"{report.selected}.onnx", threads=0)(sentences) == expected
    exports = [path.parent for path in (words_root / "artifacts" / "stages" / "export").glob("*/decoder_step.onnx")]
    assert expected in [tdc.Translator(path)(sentences) for path in exports]
    assert len(exports) == 3
    dense = tdc.Translator(run, row="dense")(sentences, beam=2, alpha=1)
    assert all(set(line.split()) <= {"eins", "zwei", "drei", "vier", "fuenf", "sechs"} for line in dense)


def test_the_engine_translates_as_onnxruntime_does(run):
    sentences = ["one two three four", "", "six six one five", "two"]
    for row in (None, "dense"):
        expected = tdc.Translator(run, row=row)(sentences, beam=1)
        assert tdc.Translator(run, row=row, backend="engine", threads=0)(sentences, beam=1) == expected
    with pytest.raises(ArgumentError, match="backend has to be one of onnxruntime, engine, and is 'torch'"):
        tdc.Translator(run, backend="torch")


def test_rules_for_odd_sentences(run):
    translate = tdc.Translator(run)
    plain, empty, blank, spaced, unknown = translate(["one two", "", " \t ", "  one \n two ", "☃☃☃ ☃"])
    assert (empty, blank, spaced) == ("", "", plain)
    assert isinstance(unknown, str)
    assert translate([]) == []
    assert (translate.refusal("one"), translate.refusal("")) == ("", "")
    assert translate.refusal("one two " * 300).endswith("pieces, more than 256: split it")
    with pytest.raises(DataError, match=r"sentence 2: \d+ pieces, more than 256: split it"):
        translate(["one", "one two " * 300])
    with pytest.raises(DataError, match="sentence 1: character 2 is no text"):
        translate(["a\udcff"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"beam": 0}, "Translator: beam has to be 1 to 64, and is 0"),
        ({"beam": 65}, "Translator: beam has to be 1 to 64, and is 65"),
        ({"alpha": -0.1}, "Translator: alpha has to be 0 to 10, and is -0.1"),
        ({"alpha": 1e300}, "Translator: alpha has to be 0 to 10, and is 1e"),
        ({"sentences": "one"}, "sentences has to be a list of texts, and is 'one'"),
        ({"sentences": ["one", 2]}, r"sentences\[1\] has to be text, and is 2"),
    ],
)
def test_arguments_out_of_range_are_named(run, given, said):
    with pytest.raises(ArgumentError, match=said):
        tdc.Translator(run)(**{"sentences": ["one"], **given})


def test_more_threads_than_cores_are_refused(run):
    with pytest.raises(ArgumentError, match="Translator: threads has to be 0 to "):
        tdc.Translator(run, threads=100_000)


def test_rows_are_named_where_one_has_to_be_chosen(run, tmp_path):
    with pytest.raises(UserError, match=r"has no row 'dens', only dense, none-0\.3, targeted-0\.3; did you mean 'dense'\?"):
        tdc.Translator(run, row="dens")
    with pytest.raises(UserError, match=r"a file, which is of one row; name the run's folder to choose row 'dense'"):
        tdc.Translator(run / "dense.onnx", row="dense")
    with pytest.raises(ModelError, match=r"no such file or run"):
        tdc.Translator(tmp_path / "nowhere")
    unselected = shutil.copytree(run, tmp_path / "unselected")
    for name in SHIPPED[:2]:
        (unselected / name).unlink()
    with pytest.raises(
        ModelError, match=r"unselected/model\.onnx: is missing; copy it from the run, or choose a row: dense, none"
    ):
        tdc.Translator(unselected)  # its manifest names it
    manifest = json.loads((unselected / "manifest.json").read_text())
    del manifest["files"]["model.onnx"]
    (unselected / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        UserError, match=r"no row was accurate enough to become model\.onnx; choose a row: dense, none-0\.3, targ"
    ):
        tdc.Translator(unselected)
    (unselected / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"unselected: there is no model\.onnx in it; choose a row: dense, none-0\.3, targ"):
        tdc.Translator(unselected)


@pytest.mark.parametrize("lost", ["deleted", "a folder", "of an export"])
def test_a_lost_first_file_is_named(copied, lost):
    (copied / SHIPPED[0]).unlink()
    if lost == "a folder":
        (copied / SHIPPED[0]).mkdir()
    elif lost == "of an export":
        (copied / SHIPPED[1]).rename(copied / "decoder_step.onnx")
    said = (
        "is no file; put the file model.onnx of the run in its place"
        if lost == "a folder"
        else "is missing; copy it from the run"
    )
    with pytest.raises(ModelError) as raised:
        find_encoder(copied)
    assert str(raised.value) == f"{copied / SHIPPED[0]}: {said}"
    with pytest.raises(ModelError, match="holds no translator with a row's name"):
        find_encoder(copied, "dense")


def test_the_only_row_that_was_copied_is_taken(run, tmp_path):
    for name in ("dense.onnx", "dense.decoder_step.onnx", "vocabulary.model"):
        shutil.copy(run / name, tmp_path)
    assert find_encoder(tmp_path) == tmp_path / "dense.onnx"
    assert tdc.Translator(tmp_path)(["one two"]) == tdc.Translator(run, row="dense")(["one two"])


def test_what_is_no_translator_is_refused(tiny_run, run, tmp_path):
    with pytest.raises(ModelError, match=r"model\.onnx: is no translator: nothing in it says that its task is \"translation\""):
        tdc.Translator(tiny_run)
    with pytest.raises(ModelError, match=r"holds no translator with a row's name: there is no file ROW\.decoder_step\.onnx"):
        tdc.Translator(tiny_run, row="none-0.5-float32")
    with pytest.raises(ModelError, match=r"holds no translator: there is neither model\.onnx nor a file"):
        tdc.Translator(tmp_path)
    with pytest.raises(ModelError, match=r"dense\.decoder_step\.onnx: is a decoder step; .* first file, dense\.onnx$"):
        tdc.Translator(run / "dense.decoder_step.onnx")
    shutil.copy(run / "dense.decoder_step.onnx", tmp_path / "decoder_step.onnx")
    with pytest.raises(ModelError, match=r"is a decoder step; give the translator's first file, model\.onnx$"):
        tdc.Translator(tmp_path / "decoder_step.onnx")
    with pytest.raises(ModelError, match=r"vocabulary\.model: not a model"):
        tdc.Translator(run / "vocabulary.model")


@pytest.mark.parametrize("missing", [SHIPPED[1:2], SHIPPED[2:], SHIPPED[1:]])
def test_a_file_that_was_not_copied_is_named(copied, missing):
    for name in missing:
        (copied / name).unlink()
    with pytest.raises(ModelError, match=rf"model\.onnx: {' and '.join(missing)} not beside it".replace(".model", r"\.model")):
        tdc.Translator(copied / "model.onnx")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "noise"])
def test_a_damaged_file_is_named(run, copied, tmp_path, name, damage):
    """Beside its manifest every damage is found; without one, what can be known from the files."""
    whole = shutil.copytree(run, tmp_path / "whole")
    for folder in (whole, copied):
        if damage == "flipped":
            flip(folder / name)
        else:
            content = {"cut": (folder / name).read_bytes()[:-7], "empty": b"", "noise": bytes(range(256)) * 9}[damage]
            (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name}: is damaged \(its sha256 is not the manifest's\)"):
        tdc.Translator(whole)
    if name == "vocabulary.model" or damage != "flipped":  # a weight that changed is known by the manifest alone
        with pytest.raises(UserError, match=name) as told:
            tdc.Translator(copied)
        assert "\n" not in str(told.value)


def test_files_of_another_network_are_refused(run, copied):
    shutil.copy(run / "dense.decoder_step.onnx", copied / SHIPPED[1])
    with pytest.raises(ModelError, match=r"model\.decoder_step\.onnx: is no decoder step of model\.onnx; copy both from one run"):
        tdc.Translator(copied)
    shutil.copy(run / "model.onnx", copied / SHIPPED[1])
    with pytest.raises(ModelError, match=r"no encoder and decoder step of one translator"):
        tdc.Translator(copied)


def test_another_vocabulary_is_refused(run, copied):
    from words import ENGLISH, GERMAN

    from tdcompress.text.files import open_translator
    from tdcompress.text.translator import TextTranslator
    from tdcompress.text.vocabulary import Vocabulary, VocabularySettings, train_vocabulary

    other = train_vocabulary([" ".join(ENGLISH), " ".join(GERMAN)] * 9, VocabularySettings(size=40))
    (copied / "vocabulary.model").write_bytes(other)
    with pytest.raises(DataError, match=r"vocabulary\.model: is damaged, or not the vocabulary of model\.onnx; copy both"):
        tdc.Translator(copied)
    decoder = open_translator(run / "model.onnx").decoder
    with pytest.raises(ModelError, match="the network knows 60 pieces, and the vocabulary has 40"):
        TextTranslator(decoder=decoder, vocabulary=Vocabulary(other))


@pytest.mark.parametrize("facts", [{"longest": "many"}, {"longest": "9" * 30}, {"network_key": ""}])
def test_facts_that_cannot_be_are_refused(copied, facts):
    model = load_model(copied / "model.onnx")
    set_metadata(model, facts)
    save_model(model, copied / "model.onnx")
    with pytest.raises(ModelError, match="does not say of which network it is, or how long a sentence may be"):
        tdc.Translator(copied)


def test_numbers_that_are_not_finite_are_a_fault(copied):
    model = load_model(copied / SHIPPED[1])
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype.kind == "f":
            tensor.CopyFrom(onnx.numpy_helper.from_array(array * float("nan"), tensor.name))
    save_model(model, copied / SHIPPED[1])
    for beam in (1, 3):
        with pytest.raises(VerificationError, match="gives logits that are not finite"):
            tdc.Translator(copied)(["one two"], beam=beam)


def test_a_manifest_that_cannot_be_read_is_said(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ModelError, match=r"manifest\.json"):
        tdc.Translator(folder)


@pytest.mark.parametrize("name", ["sentencepiece", "onnxruntime"])
def test_a_package_that_is_missing_is_named_with_its_extra(run, without, name):
    program = (
        "import sys\nimport tdcompress as tdc\n"
        "try:\n    tdc.Translator(sys.argv[1])\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run)], capture_output=True, text=True, check=False, env=without(name)
    )
    assert done.stdout == f"UserError this needs {name}: pip install '.[translate]' in tdcompress's checkout\n", done.stderr
