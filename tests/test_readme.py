"""The README's Python example runs as it stands, and its shell lines name verbs and recipes that exist."""

import re
import shlex
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from tdcompress.cli import make_parser
from tdcompress.recipes.shipped import shipped_recipes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCALING = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
FROM_C = (ROOT / "docs" / "c.md").read_text(encoding="utf-8")
WASM = (ROOT / "docs" / "wasm.md").read_text(encoding="utf-8")
BOARDS = (ROOT / "docs" / "boards.md").read_text(encoding="utf-8")
PROVIDER = (ROOT / "docs" / "provider.md").read_text(encoding="utf-8")
TRANSLATE = (ROOT / "docs" / "translate.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_python_example_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    short_benchmarks: Callable[[], AbstractContextManager[None]],
) -> None:
    (example,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(), short_benchmarks():
        torch.manual_seed(0)
        exec(compile(example, "README.md", "exec"), {})
    assert float(capsys.readouterr().out) > 0
    assert (tmp_path / "model.onnx").stat().st_size < 0.25 * (tmp_path / "dense.onnx").stat().st_size


@pytest.mark.parametrize(
    ("text", "least"),
    [(README, 8), (SCALING, 7), (FROM_C, 2), (PROVIDER, 2), (WASM, 1), (BOARDS, 1), (TRANSLATE, 7)],
    ids=["README", "scaling", "c", "provider", "wasm", "boards", "translate"],
)
def test_the_shell_lines_parse(text: str, least: int) -> None:
    lines = [shlex.split(re.split("[#<]", line)[0]) for block in blocks("sh", text) for line in block.splitlines()]
    commands = [line[1:] for line in lines if line and line[0] == "tdcompress"]
    assert len(commands) >= least
    for command in commands:
        make_parser().parse_args(command)


def test_a_translator_is_called_from_python(
    words_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = blocks("python", TRANSLATE)
    shutil.copytree(words_root / "artifacts" / "words", tmp_path / "artifacts" / "multi30k-transformer")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "translate.md", "exec"), {})
    several, one, refusal = capsys.readouterr().out.splitlines()
    assert (several[:2], one[:2]) == ("['", "['")
    assert refusal.endswith("more than 256: split it")


def test_every_file_that_translate_names_is_there() -> None:
    names = re.findall(r"\]\(([^)#]+)\)", TRANSLATE)
    assert [name for name in names if not (ROOT / "docs" / name).exists()] == []
    assert {"multi30k_transformer"} <= set(shipped_recipes())


def test_every_recipe_in_the_table_is_shipped() -> None:
    shipped = shipped_recipes()
    assert {"digits", "cifar10_lenet5_weight", "cifar10_resnet32_xtreme3", "cifar100_vgg16_unit"} <= set(shipped)
    for name in re.findall(r"tdcompress run (\w+)", README):
        assert name in shipped
