"""The verbs as people call them: exit codes, one clear line on stderr, and no torch where none is needed."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import tdcompress
from tdcompress.cli import main, make_parser
from tdcompress.commands.artifacts import parse_size
from tdcompress.commands.bench import find_files
from tdcompress.files import sha256_file
from tdcompress.recipes.shipped import shipped_recipes
from tdcompress.storage.csr import save_arrays

RECIPE = """
name = "x"
[data]
name = "digits"
[model]
name = "digits_cnn"
[sparsity]
method = "none"
[prune]
fraction = 0.5
"""


@pytest.fixture(autouse=True)
def _leave_signals_alone(monkeypatch):
    monkeypatch.setattr("tdcompress.console.Signals.listen", lambda self: None)


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Call a verb in an empty folder; gives its exit code, what it printed, and what it said on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def refused(call):
    """A call that has to end with one line on stderr, after lines of progress at most, and exit code 2 unless told."""

    def run(*arguments, code=2, after=None):
        ended, out, err = call(*arguments)
        assert (ended, out) == (code, ""), err
        *progress, line = err.splitlines()
        assert all(after and earlier.startswith(after) for earlier in progress), err
        assert line.startswith("tdcompress: ")
        return line.removeprefix("tdcompress: ")

    return run


@pytest.fixture
def copied(tiny_root, tmp_path):
    return Path(shutil.copytree(tiny_root, tmp_path / "artifacts"))


NO_MODELS = {
    "empty": b"",
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "noise": bytes(range(256)),
}


@pytest.mark.parametrize("content", NO_MODELS)
def test_files_that_are_no_models(refused, tmp_path, tiny_run, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(NO_MODELS[content])
    for verb in (["inspect", path], ["verify", path], ["pack", path, "o.onnx"], ["unpack", path, "o.onnx"]):
        assert "m.onnx: " in refused(*verb)
    assert "m.onnx" in refused("bench", path, "--baseline", tiny_run / "dense.onnx")
    assert not (tmp_path / "o.onnx").exists()


def test_a_truncated_model(refused, tmp_path, tiny_run):
    path = tmp_path / "m.onnx"
    whole = (tiny_run / "dense.onnx").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for verb in (["inspect", path], ["verify", path], ["pack", path, "o.onnx"]):
        assert "m.onnx: " in refused(*verb)


def test_missing_files_and_runs(refused, tmp_path, tiny_run):
    assert "none.toml: no such recipe" in refused("run", "none.toml")
    assert "did you mean 'digits'" in refused("run", "digit")
    assert "none.onnx" in refused("verify", "none.onnx")
    assert "none.onnx" in refused("inspect", "none.onnx")
    assert "none.onnx" in refused("pack", "none.onnx", "o.onnx")
    assert "none.onnx" in refused("unpack", "none.onnx", "o.onnx")
    assert "none.onnx: no such file, folder or run" in refused("bench", "none.onnx")
    assert "artifacts/none: no such file, folder or run" in refused("bench", tiny_run, "artifacts/none")
    shutil.copy(tiny_run / "model.onnx", tmp_path / "alone.onnx")
    assert "dense.onnx: no such file; name what the files are compared with" in refused("bench", "alone.onnx")
    assert "alone.onnx: is what files are compared with; name what is to be timed" in refused("bench", "alone.onnx", "alone.onnx")
    (tmp_path / "one").mkdir()
    shutil.copy(tiny_run / "dense.onnx", tmp_path / "one")
    assert "holds no ONNX file beside dense.onnx" in refused("bench", "one")
    (tmp_path / "empty").mkdir()
    assert "empty: a folder without ONNX files" in refused("bench", "empty")
    assert "none.onnx" in refused("bench", "none.onnx", "--baseline", tiny_run / "dense.onnx")
    assert "no such run" in refused("report", "none")
    assert "no run of this name" in refused("status", "none")
    assert "no shipped recipe" in refused("recipes", "--copy", "none")
    assert "nowhere" in refused("run", "cifar10_lenet5_weight", "--set", f"data.root={tmp_path / 'nowhere'}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train.epochs", "--set train.epochs: write it as key=value"),
        ("train.epoch=3", "--set train.epoch: unknown key; did you mean 'epochs'?"),
        ("train.epochs=three", "--set train.epochs: int needed, not 'three'"),
        ("name=../up", "--set name: '../up' cannot name the run's folder"),
        (
            "sparsity.gamma=0.5",
            '--set sparsity.gamma: unknown key; it belongs to method = "targeted", and this is "none"',
        ),
        ("model.depth=1", "--set model.depth: unknown key; it belongs to name = "),
        ("data.root=.", "--set data.root: unknown key; it belongs to name = "),
        ("epochs=1", "--set epochs: unknown key; did you mean train.epochs or finetune.epochs?"),
        ("lr=0.1", "--set lr: unknown key; did you mean train.optimizer.lr or finetune.lr?"),
        ("prune.keep_per_filter=3", "--set prune.keep_per_filter: given beside fraction"),
    ],
)
def test_bad_sets(refused, tmp_path, text, said):
    (tmp_path / "r.toml").write_text(RECIPE)
    assert refused("run", "r.toml", "--set", text).startswith(said)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "artifacts"] == []


def test_a_misspelt_key_of_a_swept_method_is_told_the_nearest_of_any_method(refused, tmp_path):
    case = '[[sweep.case]]\n"sparsity.method" = '
    (tmp_path / "r.toml").write_text(f'{RECIPE}{case}"none"\n{case}"targeted"\n"sparsity.gamma" = 0.5\n')
    said = refused("run", "r.toml", "--set", "sparsity.gamm=0.25")
    assert said.startswith("--set sparsity.gamm: unknown key; did you mean 'gamma'? (valid: granularity, ")


def test_bad_recipes_name_the_line(refused, tmp_path):
    (tmp_path / "r.toml").write_text(RECIPE.replace("fraction", "fracton"))
    assert refused("run", "r.toml").startswith("r.toml, line 10: prune.fracton: unknown key; did you mean 'fraction'?")
    (tmp_path / "r.toml").write_text("<!DOCTYPE html>")
    assert refused("run", "r.toml").startswith("r.toml: not valid TOML")


def test_a_gpu_that_is_not_there(refused, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "r.toml").write_text(RECIPE)
    assert refused("run", "r.toml", "--device", "cuda").startswith("--device cuda: torch finds no GPU here")


def test_one_recipe_that_fails_does_not_keep_the_others_from_running(call, tmp_path):
    short = RECIPE.replace("[prune]", "[train]\nepochs = 0\n[bench]\nbudget = 'none'\n[prune]")
    for name in ("first", "second", "third"):
        (tmp_path / f"{name}.toml").write_text(short.replace('"x"', f'"{name}"'))
    (tmp_path / "second.toml").write_text(RECIPE.replace("digits", "cifar10", 1).replace("[model]", 'root = "nowhere"\n[model]'))
    code, out, err = call("run", ".", "--device", "cpu")
    assert code == 2
    assert [(tmp_path / "artifacts" / name / "report.json").exists() for name in ("first", "second", "third")] == [1, 0, 1]
    told = [line for line in err.splitlines() if line.startswith("tdcompress: ")]
    assert told[0].startswith("tdcompress: second: ")
    assert "nowhere" in told[0]
    assert told[1] == "tdcompress: 1 of 3 recipes failed: second; the others are done"
    assert "third (3 of 3)" in out
    code, out, _ = call("run", "first.toml", "third.toml", "--device", "cpu")
    assert (code, out.count("nothing was run")) == (0, 2)


def test_several_processes_are_refused_before_anything_is_written(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # and nothing else that torchrun says: no rendezvous is possible
    (tmp_path / "r.toml").write_text(RECIPE)
    assert refused("run", "r.toml").startswith("started as several processes (torchrun), each of which would make the whole run")
    assert not (tmp_path / "artifacts").exists()


def test_unknown_words_end_with_2(tmp_path, capsys):
    for arguments in (["fly"], [], ["run", "digits", "--device", "tpu"], ["pack", "a"], ["bench", "a", "--budget", "huge"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert "error: " in capsys.readouterr().err


WARNING = """
import warnings
from tdcompress import cli
from tdcompress.commands import recipes

def show(args):
    for text in ("of two\\nlines", "another", "of two\\nlines"):
        warnings.warn(text)

warnings.simplefilter("always")
recipes.run = show
usual = warnings.formatwarning
assert cli.main(["recipes"]) == 0
assert warnings.formatwarning is usual
"""


def test_a_warning_is_one_line_and_said_once():
    done = subprocess.run([sys.executable, "-c", WARNING], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "tdcompress: warning: of two lines\ntdcompress: warning: another\n")


def test_words_that_may_be_left_out_are_not_called_required():
    parsers, found = [make_parser()], []
    for parser in parsers:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            elif not action.option_strings and action.nargs in ("*", "?"):
                found.append(action.dest)
                assert not action.required, action.dest
    assert set(found) == {"run", "sentences", "keys"}


def test_backends_and_providers_that_are_not_there(refused, tiny_run):
    files = (tiny_run / "model.onnx", "--baseline", tiny_run / "dense.onnx")
    assert "quantum" in refused("bench", *files, "--backend", "quantum")  # before anything is loaded
    assert "NoneExecutionProvider" in refused("bench", *files, "--provider", "NoneExecutionProvider", after="bench: ")
    assert "batch" in refused("bench", *files, "--batch", 0)
    assert "threads" in refused("bench", *files, "--threads", -1)
    assert "but the batch size is 1" in refused("bench", *files, "--batch", 1, "--shape", "2x1x8x8")
    assert "takes 'input'" in refused("bench", *files, "--shape", "1x3x8x8")
    for wrong in ("1x", "axb", "0x3"):
        with pytest.raises(SystemExit):
            refused("bench", *files, "--shape", wrong)


def test_a_missing_baseline_hides_no_other_mistake(refused, tiny_run, tmp_path):
    shutil.copy(tiny_run / "model.onnx", tmp_path / "alone.onnx")
    for wrong, said in {
        ("--backend", "quantum"): "quantum",
        ("--shape", "1x3x8x8"): "takes 'input'",
        ("--threads", -1): "threads",
        ("--baseline", "none.onnx", "--batch", 0): "batch",
    }.items():
        assert said in refused("bench", "alone.onnx", *wrong)
    assert "none.onnx: no such file, folder or run" in refused("bench", "alone.onnx", "none.onnx")
    (tmp_path / "text.onnx").write_text("a text")
    assert "text.onnx: " in refused("bench", "text.onnx")
    assert "dense.onnx: no such file; name what" in refused("bench", "alone.onnx", "--shape", "2x1x8x8")


WRITES = {
    "pack": ["pack", "M"],
    "unpack": ["unpack", "M"],
    "compile": ["compile", "M"],
    "emit-c": ["emit-c", "M"],
    "library": ["library"],
    "bench": ["bench", "M", "--baseline", "M", "--json"],
    "recipes": ["recipes", "--write-keys"],
    "data pack": ["data", "pack", "cifar10", "--out"],
    "data unpack": ["data", "unpack", ".", "--root"],
    "artifacts export": ["artifacts", "export", "--stage", "train", "--to"],
}


@pytest.mark.parametrize("verb", WRITES)
def test_a_path_to_write_through_a_file_is_told_before_any_work(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SystemExit, match="2"):
        main([*WRITES[verb], str(Path("file") / "below" / "out")])
    assert "file: a file, not a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("verb", ["pack", "unpack", "compile", "emit-c", "bench", "recipes"])
def test_a_folder_is_no_file_to_write(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main([*WRITES[verb], "."])
    assert ".: is a folder; name the file to write" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("verb", ["pack", "unpack", "compile", "emit-c", "bench", "recipes"])
def test_a_pipe_is_no_file_to_write(verb, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SystemExit, match="2"):
        main([*WRITES[verb], str(tmp_path / "pipe")])
    assert "pipe: is a device, a pipe or a socket; name an ordinary file to write" in " ".join(capsys.readouterr().err.split())


def test_missing_folders_of_what_is_written_are_made(call, tiny_run, tmp_path, short_benchmarks):
    source = tiny_run / "model.onnx"
    for verb, name in {"pack": "out.onnx", "unpack": "out.onnx", "compile": "out.tdc", "emit-c": "out.c"}.items():
        target = tmp_path / verb / "below" / name
        assert call(verb, source, target)[0] == 0
        assert target.is_file()
    assert call("recipes", "--write-keys", tmp_path / "keys" / "below" / "keys.md")[0] == 0
    assert (tmp_path / "keys" / "below" / "keys.md").is_file()
    with short_benchmarks():
        assert call("bench", source, "--baseline", source, "--json", tmp_path / "times" / "below" / "here.json")[0] == 0
    assert (tmp_path / "times" / "below" / "here.json").is_file()


def test_a_folder_that_may_not_be_written(refused, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "r.toml").write_text(RECIPE)
    with pytest.raises(SystemExit, match="2"):
        refused("run", "r.toml", "--artifacts", tmp_path / "file")


def test_recipes_are_listed_and_copied(call, tmp_path):
    code, out, _ = call("recipes")
    assert code == 0
    assert any(line.startswith("digits ") for line in out.splitlines())
    assert "needs no download" in " ".join(out.split())  # folded into the width
    assert call("recipes", "--copy", "digits")[:2] == (0, f"wrote {tmp_path / 'digits.toml'}\n")


def test_recipes_fold_into_the_width_of_a_pipe_that_columns_tells_and_the_demo_comes_first(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    code, out, _ = call("recipes")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 60
    rows = [line for line in out.splitlines() if line.strip() and not set(line) <= set(" ━─")]
    assert rows[0].split() == ["recipe", "what"]
    assert rows[1].startswith("digits ")
    known = shipped_recipes()
    words = sorted(word for name, what in known.items() for word in (name, *what.split()))
    assert sorted(word for line in rows[1:] for word in line.split()) == words  # none is cut


def test_status_of_runs_and_stages(call, copied, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # so that no message is folded, however long the folder's name
    code, out, _ = call("status", "--artifacts", copied)
    assert code == 0
    assert "tiny" in out
    assert "complete" in out
    (copied / "stages" / "train" / f"{'0123' * 4}.partial").mkdir()
    (copied / "tiny" / "dense.onnx").write_bytes(b"")
    code, out, _ = call("status", "tiny", "--artifacts", copied)
    assert code == 0
    assert "damaged" in out
    _, out, _ = call("status", "--artifacts", copied)
    assert [line.split() for line in out.splitlines() if line.startswith("train ")] == [["train", "2", "1", "0"]]
    (copied / "tiny" / "report.json").write_text("{")
    assert "report.json: damaged" in call("status", "--artifacts", copied)[1]
    assert "none yet: tdcompress run digits" in " ".join(call("status", "--artifacts", copied / "nowhere")[1].split())
    shutil.rmtree(copied / "tiny")  # as of stages that another machine made
    out = " ".join(call("status", "--artifacts", copied)[1].split())
    assert "none yet, but the stages below: the recipe that they are of goes on from them" in out
    assert "digits" not in out


def test_a_report_is_shown_again(call, copied):
    code, out, _ = call("report", "tiny", "--artifacts", copied, "--json")
    assert code == 0
    assert json.loads(out)["run"] == "tiny"
    code, out, _ = call("report", "tiny", "--artifacts", copied)
    assert code == 0
    assert "targeted-0.5" in out
    assert "Layers of targeted-0.5" in out


def test_bad_benchmarks_do_not_join(refused, copied, tmp_path):
    before = {path.name: sha256_file(path) for path in (copied / "tiny").iterdir()}
    for content in ("", "<html>", "[]", "3", "{}", '{"benchmark": 3}', '{"schema": 1, "benchmark": {"rows": []}}', "null"):
        (tmp_path / "b.json").write_text(content)
        refused("report", "tiny", "--artifacts", copied, "--bench", tmp_path / "b.json")
    refused("report", "tiny", "--artifacts", copied, "--bench", tmp_path / "none.json")
    refused("report", "tiny", "--artifacts", copied, "--compare", "no-such-table")
    assert {path.name: sha256_file(path) for path in (copied / "tiny").iterdir()} == before
    (copied / "tiny" / "report.json").write_text('{"run": 3}')
    refused("report", "tiny", "--artifacts", copied, code=1)


def test_inspect_as_json(call, tiny_root, tiny_run):
    _, out, _ = call("inspect", tiny_run / "model.onnx", "--json")
    assert json.loads(out)["opset"] == 20
    _, out, _ = call("inspect", "tiny", "--artifacts", tiny_root, "--json")
    assert set(json.loads(out)) == {path.name for path in tiny_run.glob("*.onnx")}


def test_the_run_verb_says_which_training_parts_are_missing(command, without_torch, tmp_path):
    done = command("run", "digits", "--artifacts", tmp_path, env=without_torch)
    assert done.returncode == 2
    assert done.stderr.startswith("tdcompress: this needs torch, torchvision, ")
    assert done.stderr.endswith("pip install '.[train]' in tdcompress's checkout\n")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def deployed(command, without_torch, tmp_path):
    """A verb on a machine without torch; it has to do its work."""

    def run(*arguments, **options):
        done = command(*arguments, env=without_torch, cwd=tmp_path, **options)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


def test_a_run_is_verified_without_torch(deployed, tiny_root):
    out = deployed("verify", "tiny", "--artifacts", tiny_root)
    lines = {line.split()[1].rstrip(":"): line for line in out.splitlines()}
    assert set(lines) == {path.name for path in (tiny_root / "tiny").glob("*.onnx")}
    assert all("16 samples" in line for line in lines.values())


def test_files_are_inspected_packed_and_unpacked_without_torch(deployed, tiny_run, tmp_path):
    assert "conv1.weight" in deployed("inspect", tiny_run / "none-0.5-float32.onnx")
    packed, plain = tmp_path / "packed.onnx", tmp_path / "plain.onnx"
    assert "x0." in deployed("pack", tiny_run / "none-0.5-float32.onnx", packed, "--prefer", "size")
    assert f"wrote {plain}" in deployed("unpack", packed, plain)
    assert packed.stat().st_size < plain.stat().st_size
    onnx.checker.check_model(onnx.load(plain))


def test_external_data_is_read_only_where_it_is_allowed(refused, call, tiny_run, tmp_path):
    model = onnx.load(tiny_run / "dense.onnx")
    one, two, plain = (tmp_path / name for name in ("one.onnx", "two.onnx", "plain.onnx"))
    onnx.save_model(model, one, save_as_external_data=True, location="one.data", size_threshold=0)
    for verb in (["inspect", one], ["verify", one], ["pack", one, two], ["unpack", one, two]):
        assert "--external-data" in refused(*verb)
        assert not two.exists()
    dense = tiny_run / "dense.onnx"
    for verb in (
        ["inspect", one, "--backend", "engine"],
        ["bench", one, "--baseline", dense],
        ["bench", dense, "--baseline", one],
    ):
        assert "--external-data" in refused(*verb)
    engine = ["inspect", one, "--backend", "engine"]
    for verb in (["inspect", one], engine, ["verify", one], ["unpack", one, plain], ["pack", one, two]):
        call(*verb, "--external-data")
    assert onnx.load(plain) == onnx.load(tiny_run / "dense.onnx")


def test_packing_says_what_it_rounded_and_left_alone(call, tiny_run, tmp_path):
    model = onnx.load(tiny_run / "none-0.5-float32.onnx")
    model.graph.initializer.append(helper.make_tensor("half", onnx.TensorProto.BFLOAT16, [64], [0.0, 1.0] * 32))
    onnx.save(model, tmp_path / "m.onnx")
    _, out, _ = call("pack", tmp_path / "m.onnx", tmp_path / "p.onnx", "--values", "float16")
    wrote, rounded, outputs, left = out.splitlines()
    assert wrote.startswith(f"wrote {tmp_path / 'p.onnx'}: ")
    assert rounded.startswith("float16: weights differ by at most 0.000")
    assert outputs.startswith("float16: outputs on random inputs differ by at most ")
    assert left == "with zeros, but kept dense because element type BFLOAT16 is not packed: half"


def test_a_folder_named_like_a_file(refused, tmp_path):
    (tmp_path / "m.onnx").mkdir()
    assert "m.onnx: a folder without ONNX files" in refused("inspect", tmp_path / "m.onnx")
    for verb in ("pack", "unpack"):
        assert "m.onnx: is a folder, not an ONNX file" in refused(verb, tmp_path / "m.onnx", tmp_path / "p.onnx")
    assert "m.onnx a run's folder?" in refused("verify", tmp_path / "m.onnx", code=1)


def test_a_plain_folder_is_timed_against_its_largest_file(call, refused, tiny_run, tmp_path, short_benchmarks):
    folder = tmp_path / "plain"
    folder.mkdir()
    for name, source in {"a.onnx": "targeted-0.5.onnx", "b.onnx": "dense.onnx", "c.onnx": "none-0.5-int8.onnx"}.items():
        shutil.copy(tiny_run / source, folder / name)
    found = {
        baseline: find_files([folder], baseline and Path(baseline), tmp_path)
        for baseline in (None, "c.onnx", str(folder / "a.onnx"))
    }
    assert {baseline: (sorted(file.name for file in files), against.name) for baseline, (files, against) in found.items()} == {
        None: (["a.onnx", "c.onnx"], "b.onnx"),
        "c.onnx": (["a.onnx", "b.onnx"], "c.onnx"),
        str(folder / "a.onnx"): (["b.onnx", "c.onnx"], "a.onnx"),
    }
    with short_benchmarks():
        code, out, _ = call("bench", folder, "--json", "here.json")
    assert code == 0
    assert "compared with b.onnx" in " ".join(out.split())
    measured = json.loads((tmp_path / "here.json").read_text())["benchmark"]
    assert [row["file"] for row in measured["rows"]] == ["a.onnx", "c.onnx"]
    assert measured["control"]["file"] == "b.onnx"
    assert "none.onnx: no such file; name what the files are compared with" in refused("bench", folder, "--baseline", "none.onnx")
    files, against = find_files([folder / "c.onnx", folder / "b.onnx", folder / "a.onnx"], None, tmp_path)  # named one by one
    assert ([file.name for file in files], against.name) == (["c.onnx", "a.onnx"], "b.onnx")
    shutil.copy(tiny_run / "dense.onnx", folder / "dense.onnx")
    assert find_files([folder], None, tmp_path)[1].name == "dense.onnx"  # as of a run


def test_what_another_machine_measured_joins_the_report_without_torch(deployed, call, copied, tmp_path):
    run = copied / "tiny"
    before = json.loads((run / "report.json").read_text())
    for name in ("none-0.5-int8.onnx", "none-0.5-float16.onnx"):
        (run / name).rename(tmp_path / name)
    out = deployed("bench", "tiny", "--artifacts", copied, "--shape", "2x1x8x8", "--json", tmp_path / "here.json", short=True)
    assert "batch 2, quick budget" in out
    timed = [row["file"] for row in json.loads((tmp_path / "here.json").read_text())["benchmark"]["rows"]]
    assert timed == ["model.onnx", "none-0.5-float32.onnx", "targeted-0.5.onnx"]
    for name in ("none-0.5-int8.onnx", "none-0.5-float16.onnx"):
        (tmp_path / name).rename(run / name)
    code, _, err = call("report", "tiny", "--artifacts", copied, "--bench", tmp_path / "here.json")
    assert code == 0
    assert f"{tmp_path / 'here.json'}: joined " in err
    assert "targeted-0.5" in err
    assert "onnxruntime, 1 thread, batch 2, on " in err
    again = call("report", "tiny", "--artifacts", copied, "--bench", tmp_path / "here.json")[2]
    assert again.count("(in place of what was measured before)") == 1
    after = json.loads((run / "report.json").read_text())
    joined = {row["id"]: [latency for latency in row["latency"] if latency["batch"] == 2] for row in after["rows"]}
    assert len(joined["targeted-0.5"]) == 1
    assert len(joined[before["selected"]]) == 1
    assert [row["latency"][0] for row in after["rows"]] == [row["latency"][0] for row in before["rows"]]
    deployed("verify", "tiny", "--artifacts", copied)


def test_sparse_weights_load_without_torch(without_torch, tmp_path):
    save_arrays({"w": np.eye(30, dtype=np.float32)}, tmp_path / "w.npz")
    program = "import sys, tdcompress as tdc; print(tdc.load_sparse(sys.argv[1])['w'].nnz)"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "w.npz")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **without_torch},
    )
    assert done.stdout.strip() == "30", done.stderr


def test_trainings_alone_within_the_time_given(call, refused, tmp_path):
    (tmp_path / "x.toml").write_text(RECIPE + '[train]\nepochs = 1\nbatch_size = 512\n[bench]\nbudget = "none"\n')
    assert "add --only train" in refused("run", "x.toml", "--together", 2)
    said = refused("run", "x.toml", "--only", "train", "--minutes", 1e-6, code=75)
    assert "the time that was given (1e-06 minutes) is over: 0 of 1 trainings are done" in said
    assert "is over: stopped" in refused("run", "x.toml", "--minutes", 1e-6, code=75)
    code, out, _ = call("run", "x.toml", "--only", "train", "--minutes", 10)
    assert code == 0
    assert "all 1 trainings are done; 1 stages were run now" in out
    for wrong in (["--minutes", "0"], ["--minutes", "nan"], ["--together", "0"], ["--only", "prune"]):
        with pytest.raises(SystemExit):
            call("run", "x.toml", *wrong)


def test_trainings_alone_need_nothing_of_export_and_report(without, tmp_path):
    (tmp_path / "x.toml").write_text(RECIPE + "[train]\nepochs = 1\nbatch_size = 512\n")
    program = (
        "import sys\nfrom tdcompress.cli import main\n"
        "assert main(['run', 'x.toml', '--only', 'train', '--minutes', '4']) == 0\n"
        "sys.exit(main(['run', 'x.toml']))"
    )
    there = {**os.environ, **without("onnxscript", "matplotlib", "tomli_w")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path, env=there)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("tdcompress: this needs onnxscript, matplotlib, tomli_w: "), done.stderr
    (metrics,) = tmp_path.glob("artifacts/stages/train/*/metrics.jsonl")
    assert len(metrics.read_text().splitlines()) == 1


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"tdcompress {tdcompress.__version__}\n")


def test_the_package_is_a_command_of_a_checkout(tmp_path):
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "tdcompress", "recipes"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert "paper/workshop3_lenet5_weight" in done.stdout


def test_the_age_of_a_process_is_plausible():
    program = "import time; time.sleep(0.3); from tdcompress.cli import process_age; print(process_age())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0.0 <= float(done.stdout) < 60.0


def test_artefacts_travel_between_folders(call, refused, copied, tmp_path):
    code, out, _ = call("artifacts", "list", "--artifacts", copied)
    lines = [line.split() for line in out.splitlines()[1:]]
    assert code == 0
    trained = [line[1] for line in lines if line[0] == "train"]
    assert len(trained) == 2
    code, out, _ = call(
        "artifacts", "export", "--stage", "train", "--artifacts", copied, "--to", "gpu/all", "--part-size", "70kB"
    )
    assert code == 0
    parts = sorted((tmp_path / "gpu").iterdir())
    assert [path.name for path in parts] == [f"all.{number:03d}.tdca" for number in range(len(parts))]
    assert all(path.stat().st_size <= 70_000 for path in parts)
    assert f"wrote {Path('gpu/all.000.tdca')}: " in out
    assert f"2 artefacts, 0 of them unfinished; take them in with: tdcompress artifacts import {Path('gpu/all.000.tdca')}" in out
    _, out, _ = call(
        "artifacts", "export", *(line[1] for line in lines), "--artifacts", copied, "--to", "whole", "--part-size", "70kB"
    )
    assert "wrote whole.001.tdca: " in out
    assert out.endswith("take them in with: tdcompress artifacts import whole.*.tdca\n")
    code, out, _ = call("artifacts", "import", *parts, "--artifacts", "there")
    assert code == 0
    assert out.splitlines() == [f"imported      train {key}" for key in trained]
    _, out, _ = call("artifacts", "export", trained[0][:7], "--artifacts", "there", "--to", "one")
    assert "1 artefact, 0 of them unfinished; take them in with: tdcompress artifacts import one.000.tdca" in out
    _, out, _ = call("artifacts", "import", "one.000.tdca", "--artifacts", copied)
    assert out.splitlines() == [f"already there train {trained[0]}"]
    assert "name what to export" in refused("artifacts", "export")
    assert "no such file" in refused("artifacts", "import", "none.tdca")
    assert "is no key here" in refused("artifacts", "export", "zzz", "--artifacts", copied)
    assert "none: there is nothing to export" in refused("artifacts", "export", "--stage", "train", "--artifacts", "none")
    for wrong in (
        ("--part-size", "x16"),
        ("--part-size", "16XB"),
        ("--part-size", "1e9MB"),
        ("--stage", "trian"),
        ("--max-parts", "0"),
    ):
        with pytest.raises(SystemExit):
            call("artifacts", "export", trained[0], *wrong)


def test_sizes_are_read_in_small_and_large_letters():
    assert [parse_size(text) for text in ("300kB", "300KB", "1.5 mib", "7", "7B")] == [300_000, 300_000, 1_572_864, 7, 7]


def test_the_artefacts_of_a_recipe_travel(call, copied, tmp_path, tiny_text):
    (tmp_path / "tiny.toml").write_text(tiny_text)
    (copied / "stages" / "train" / ("0" * 16)).mkdir()  # another recipe's
    code, out, _ = call("artifacts", "export", "--recipe", "tiny.toml", "--stage", "train", "--artifacts", copied, "--to", "t")
    assert code == 0
    assert "2 artefacts, 0 of them unfinished" in out
