"""``tdcompress run`` as people call it: what is refused before anything is written, several recipes, trainings alone."""

import os
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize(
    ("first", "second", "later", "lost"),
    [
        ("train.epochs=1", "train.epochs = 2", "train.epochs", "train.epochs"),
        ("train={epochs=1}", "train.epochs=2", "train.epochs", "train.epochs"),
        ("train.epochs=1", "train={epochs=2}", "train", "train.epochs"),
        ("sweep.prune.fraction=[0.5]", "sweep={}", "sweep", "sweep.prune.fraction"),
    ],
)
def test_a_key_that_is_set_twice_is_refused(refused, tmp_path, first, second, later, lost):
    (tmp_path / "r.toml").write_text(RECIPE)
    said = refused("run", "r.toml", "--set", first, "--set", "seed=3", "--set", second)
    assert said == f"--set {later}: takes the place of {lost}, which --set gives too; leave one of them out"


def test_a_set_that_does_nothing_in_any_of_several_recipes_is_refused(refused, tmp_path):
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "s.toml").write_text(RECIPE.replace('"x"', '"y"'))
    said = refused("run", "r.toml", "s.toml", "--set", "shrink.align=16")
    assert said.startswith("--set shrink.align: it does nothing in any of these 2 recipes; leave it out")


def test_a_set_may_do_nothing_in_some_of_several_recipes(call, tmp_path):
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "s.toml").write_text(RECIPE.replace('"x"', '"y"') + 'granularity = "unit"\n')
    changes = [each for key in ("train.epochs=0", "shrink.align=16") for each in ("--set", key)]
    code, out, err = call("run", "r.toml", "s.toml", "--only", "train", *changes)
    assert code == 0, err
    assert "the training is done" in out + err


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


def test_what_the_system_refuses_one_recipe_does_not_keep_the_others_from_running(call, tmp_path, monkeypatch):
    def refused(path, work, *, shared):
        ran.append(path.stem)
        if path.stem == "first":
            raise PermissionError(13, "Permission denied", "data/train.gz")

    ran = []
    monkeypatch.setattr("tdcompress.commands.run.run_one", refused)
    for name in ("first", "second"):
        (tmp_path / f"{name}.toml").write_text(RECIPE)
    code, _, err = call("run", "first.toml", "second.toml", "--device", "cpu")
    assert (code, ran) == (2, ["first", "second"])
    assert [line for line in err.splitlines() if line.startswith("tdcompress: ")] == [
        "tdcompress: first: data/train.gz: Permission denied",
        "tdcompress: 1 of 2 recipes failed: first; the others are done",
    ]


def test_recipes_of_one_file_name_are_counted_one_by_one(call, tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        text = RECIPE.replace("digits", "cifar10", 1).replace("[model]", 'root = "nowhere"\n[model]')
        (tmp_path / name / "recipe.toml").write_text(text.replace('"x"', f'"{name}"'))
    code, out, err = call("run", "first/recipe.toml", "second/recipe.toml", "--device", "cpu")
    assert (code, err.splitlines()[-1]) == (2, "tdcompress: 2 of 2 recipes failed: recipe, recipe")
    assert [line for line in out.splitlines() if line] == ["recipe (1 of 2)", "recipe (2 of 2)"]


def test_several_processes_are_refused_before_anything_is_written(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # and nothing else that torchrun says: no rendezvous is possible
    (tmp_path / "r.toml").write_text(RECIPE)
    assert refused("run", "r.toml").startswith("started as several processes (torchrun), each of which would make the whole run")
    assert not (tmp_path / "artifacts").exists()


def test_a_folder_that_may_not_be_written(refused, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "r.toml").write_text(RECIPE)
    with pytest.raises(SystemExit, match="2"):
        refused("run", "r.toml", "--artifacts", tmp_path / "file")


def test_the_run_verb_says_which_training_parts_are_missing(command, without_torch, tmp_path):
    done = command("run", "digits", "--artifacts", tmp_path, env=without_torch)
    assert done.returncode == 2
    assert done.stderr.startswith("tdcompress: this needs torch, torchvision, ")
    assert done.stderr.endswith("pip install '.[train]' in tdcompress's checkout\n")
    assert done.stderr.count("\n") == 1


def test_trainings_alone_within_the_time_given(call, refused, tmp_path):
    (tmp_path / "x.toml").write_text(RECIPE + '[train]\nepochs = 1\nbatch_size = 512\n[bench]\nbudget = "none"\n')
    assert "add --only train" in refused("run", "x.toml", "--together", 2)
    said = refused("run", "x.toml", "--only", "train", "--minutes", 1e-6, code=75)
    assert "the time that was given (1e-06 minutes) is over: 0 of 1 trainings are done" in said
    assert "is over: stopped" in refused("run", "x.toml", "--minutes", 1e-6, code=75)
    code, out, _ = call("run", "x.toml", "--only", "train", "--minutes", 10)
    assert code == 0
    assert "the training is done; 1 stage was run now" in out
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
