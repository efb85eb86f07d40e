"""What docs/translate.md tells people to type works, on a run of a small translator."""

import re
import shlex
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("sentencepiece")

from tdcompress.cli import main, make_parser
from tdcompress.recipes.shipped import find_recipe

PAGE = (Path(__file__).parent.parent / "docs" / "translate.md").read_text(encoding="utf-8")
RUN = "multi30k-transformer"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def commands():
    """(arguments, file of standard input, file of standard output) of each line that calls tdcompress."""
    found = []
    for line in (line for block in blocks("sh") for line in block.splitlines()):
        words = shlex.split(line, comments=True)
        if words[:1] == ["tdcompress"]:
            ends = [words.index(mark) if mark in words else None for mark in ("<", ">")]
            files = [words[end + 1] if end else None for end in ends]
            found.append((words[1 : min([end for end in ends if end] or [len(words)])], *files))
    return found


@pytest.fixture
def there(words_root, tmp_path, monkeypatch):
    """A folder in which the small run has the name that the page uses."""
    shutil.copytree(words_root / "artifacts" / "words", tmp_path / "artifacts" / RUN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_line_is_one_that_is_tried_here():
    verbs = [arguments[0] for arguments, *_ in commands()]
    assert set(verbs) == {"run", "report", "verify", "translate", "artifacts"}
    assert verbs.count("translate") == 4
    for arguments, *_ in commands():
        make_parser().parse_args(arguments)
    ((_, recipe, *_), *_) = [arguments for arguments, *_ in commands() if arguments[0] == "run"]
    assert f'name = "{RUN}"' in find_recipe(Path(recipe)).read_text(encoding="utf-8")


@pytest.mark.parametrize(("arguments", "given", "to"), commands(), ids=lambda part: str(part))
def test_what_is_typed_ends_well(there, capsys, monkeypatch, arguments, given, to):
    if arguments[0] in ("run", "artifacts"):
        return  # a training; the same verbs are tried on a small text in tests/tasks and tests/runs
    with ExitStack() as opened:
        if given:
            (there / given).write_text("one two three\n\nfour\n", encoding="utf-8")
            monkeypatch.setattr("sys.stdin", opened.enter_context((there / given).open(encoding="utf-8")))
        assert main(arguments) == 0
    said = capsys.readouterr().out.splitlines()
    if arguments[0] == "translate":
        assert len(said) == (3 if given else sum(word.endswith(".") for word in arguments))


def test_the_lines_of_python_work(there, capsys):
    (program,) = blocks("python")
    exec(compile(program, "translate.md", "exec"), {})
    many, one, reason = capsys.readouterr().out.splitlines()
    assert len(eval(many)) == 2
    assert len(eval(one)) == 1
    assert "pieces" in reason


def test_the_files_to_copy_are_all_that_is_needed(there):
    names = re.findall(r"^\| `([\w.]+)` \|", PAGE, flags=re.MULTILINE)
    assert names == ["model.onnx", "model.decoder_step.onnx", "vocabulary.model"]
    (there / "alone").mkdir()
    for name in names:
        shutil.copy(there / "artifacts" / RUN / name, there / "alone")
    assert main(["translate", "alone", "one two"]) == 0
