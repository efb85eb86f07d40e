"""What docs/own.md and docs/choosing.md show works: recipes resolve, the network is built, the verbs and files exist."""

import importlib
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
