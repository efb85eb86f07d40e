"""What docs/own.md and docs/choosing.md show works: recipes resolve, the network is built, the verbs and files exist."""

import importlib
import json
import re
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from tdcompress.cli import make_parser
from tdcompress.models import user_models
from tdcompress.models.registry import build_model
from tdcompress.recipes.experiment import resolve
from tdcompress.recipes.source import parse_recipe
from tdcompress.recipes.sweep import expand_sweep

ROOT = Path(__file__).parent.parent
OWN = (ROOT / "docs" / "own.md").read_text(encoding="utf-8")
CHOOSING = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", OWN, flags=re.DOTALL)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The worked example's package, as pip would install it."""
    (tmp_path / "my_nets.py").write_text(blocks("python")[0])
    (table,) = blocks("ini")
    ((name, value),) = re.findall(r'^(\w+) = "(my_nets:\w+)"', table, flags=re.MULTILINE)
    points = EntryPoints([EntryPoint(name=name, value=value, group=user_models.GROUP)])
    monkeypatch.setattr(user_models, "entry_points", lambda **keys: points.select(**keys))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return name


def test_the_recipes_resolve_with_the_network_of_the_worked_example(installed):
    pets, mine = (resolve(variant) for text in blocks("toml") for variant in expand_sweep(parse_recipe(text)))
    assert (pets.data.name, pets.finetune.after, pets.steps["shrink"].align) == ("imagefolder", "shrink", 16)
    assert (mine.model_name, mine.model.width) == (installed, 48)
    model = build_model(installed, classes=7, image=(1, 8, 8), width=48)
    assert (model[0].out_channels, model[-1].out_features) == (48, 7)


def test_the_shell_lines_parse():
    lines = [line.split("#")[0].split() for block in blocks("sh") for line in block.splitlines()]
    commands = [line[1:] for line in lines if line and line[0] == "tdcompress"]
    assert len(commands) == 6
    for command in commands:
        make_parser().parse_args(command)


@pytest.mark.parametrize("text", [OWN, CHOOSING], ids=["own", "choosing"])
def test_every_file_that_is_named_is_there(text):
    names = re.findall(r"\]\(([^)#]+)\)", text)
    assert names
    assert [name for name in names if not (ROOT / "docs" / name).exists()] == []


@pytest.mark.parametrize(
    ("number", "source"),
    [
        ("87.5 | 91.9 | 96.1 | 30.6", "docs/log.md"),
        ("81.6 | 85.0 | 97.5 | 76.3", "docs/log.md"),
        ("64.6 | 68.0 | 93.9 | 98.1", "docs/log.md"),
        ("0.839 (0.776 to 0.902)", "docs/shrink.md"),
        ("0.588 (0.576 to 0.604)", "docs/shrink.md"),
        ("0.359 (0.344 to 0.373)", "docs/shrink.md"),
        ("84.27", "docs/log.md"),
        ("87.21", "docs/log.md"),
        ("93.24", "docs/log.md"),
        ("19,392", "docs/log.md"),
        ("18,494", "docs/log.md"),
        ("98.05", "artifacts/reference/digits/report.md"),
        ("95.54", "artifacts/reference/digits/report.md"),
        ("1.000 [0.992, 1.009] no claim", "artifacts/reference/digits/report.md"),
        ("0.37 [0.32, 0.43] faster", "artifacts/reference/digits/report.md"),
        ("84.17", "artifacts/reference/cifar10-resnet20/report.md"),
        ("88.04", "artifacts/reference/cifar10-resnet20/report.md"),
        ("64.77", "artifacts/reference/cifar10-lenet5-weight/report.md"),
        ("59.5", "docs/papers.md"),
        ("62.5", "docs/papers.md"),
        ("18.5", "docs/papers.md"),
        ("35.9", "docs/papers.md"),
        ("49.9", "docs/papers.md"),
    ],
)
def test_numbers_are_those_of_their_source(number, source):
    assert number in CHOOSING
    assert number in (ROOT / source).read_text(encoding="utf-8")


def test_what_was_trained_on_a_gpu_is_said_as_its_metrics_have_it():
    texts = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("log.md", "papers.md")]
    log, papers = (" ".join(text.split()) for text in texts)
    file = ROOT / "artifacts" / "reference" / "h200" / "trainings.json"
    trainings = json.loads(file.read_text(encoding="utf-8"))["trainings"]
    finished = [each["record"] for each in trainings if each["finished"]]
    assert sorted((each["method"], each["epochs"], each["accuracy"]) for each in finished) == [
        ("none", 40, 0.9324),
        ("none", 60, 0.9133),
        ("targeted", 40, 0.1),
        ("targeted", 40, 0.8721),
    ]
    assert all(f"{each['accuracy']:.2%}".replace("%", " %") in log for each in finished)
    cut_off = [each for each in trainings if not each["finished"]]
    assert len(cut_off) == 4
    for each in cut_off:
        done, asked = each["metrics"][-1]["epoch"], each["settings"]["train"]["epochs"]
        measured = [(line["epoch"], line["test_accuracy"]) for line in each["metrics"] if "test_accuracy" in line]
        on = f"{measured[-1][1]:.2%} after {measured[-1][0]}".replace("%", " %") if measured else f"after {done}"
        assert on in log
        if each["settings"]["model"]["name"] == "resnet32":
            assert on in papers
            assert f"to {done} " in papers
            assert f"after {done} of {asked}" in log


@pytest.mark.parametrize("name", ["choosing.md", "log.md"])
def test_the_ablations_tables_are_those_of_its_report(name):
    rows = json.loads(
        (ROOT / "artifacts" / "reference" / "cifar10-resnet20-ablation" / "report.json").read_text(encoding="utf-8")
    )["rows"]
    lines = (ROOT / "docs" / name).read_text(encoding="utf-8").splitlines()
    for row in rows:
        (line,) = [line for line in lines if line.startswith(f"| {row['id'].removesuffix('-0.95')} | ")]
        before, after = (re.match(r"[\d.]*", cell.strip())[0] for cell in line.split("|")[3:5])
        assert before == ("" if row["finetune_epochs"] else f"{100 * row['accuracy_before']:.2f}")
        assert after == f"{100 * row['accuracy_onnx']:.2f}"
