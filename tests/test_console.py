"""What a person sees at 80 columns."""

import io
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from tdcompress.artifacts import read_artifact
from tdcompress.commands import recipes, shared
from tdcompress.console import StageConsole, _shipped_bytes, make_console
from tdcompress.recipes.shipped import shipped_recipes
from tdcompress.stages.train import progress_text


def terminal(width):
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)


def task(title, key="0"):
    return SimpleNamespace(title=title, key=key)


def drawn(watcher):
    """The bars as they stand."""
    with watcher.console.capture() as shown:
        watcher.console.print(watcher.bars.get_renderable())
    return shown.get().rstrip("\n").splitlines()


LONG = "train cifar_resnet20 targeted(gamma=0.9, alpha=0.75, schedule=cubic, ramp_share=[0.0, 0.45])"


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_narrow_terminal_shows_bar_percent_speed_and_time_left(width):
    watcher = StageConsole(terminal(width))
    now = SimpleNamespace(epoch=12, epochs=40, loss=1.234, throughput=3204.4, unit="images", precision="bfloat16")
    progress = watcher.started(task(LONG))
    for done in (100, 200, 300):
        progress.update(done, 1000, progress_text(now))
    (line,) = drawn(watcher)
    assert len(line) <= width
    assert line.startswith("train cifar_resnet20")
    for shown in (" 30 %", "\u2501", "3,204 images/s", "epoch 12/40" if width > 80 else ""):
        assert shown in line
    assert any((part.count(":") and part.replace(":", "").replace("-", "").isdigit()) or part == "--:--" for part in line.split())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_of_stages_that_are_done_fit(width):
    console = terminal(width)
    watcher = StageConsole(console)
    watcher.started(task(LONG))
    record = {"accuracy": 0.9876, "onnx_bytes": 123456, "notes": ()}
    artifact = SimpleNamespace(record=record, files={"model.onnx": "0" * 64})
    watcher.finished(task(LONG), artifact, 12345.6)
    watcher.reused(task(LONG), artifact)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= width and "98.76%" in line and "120.6 KiB" in line for line in lines)
    assert lines[0].endswith("12345.6 s")


def test_a_file_has_as_many_bytes_while_it_is_made_as_in_the_report(tiny_root, words_root):
    for run in (tiny_root / "tiny", words_root / "artifacts" / "words"):
        links = json.loads((run / "stages.json").read_text())
        for row in json.loads((run / "report.json").read_text())["rows"]:
            exported = read_artifact((run / links[row["id"]]["export"]).resolve())
            assert _shipped_bytes(exported) == row["onnx_bytes"]


def test_what_is_waited_for_has_a_bar_until_the_stage_begins():
    watcher = StageConsole(terminal(80))
    watcher.waiting("train 0123 is in use by process 7 on host since noon", 0.0)
    watcher.waiting("train 0123 is in use by process 7 on host since noon", 3725.0)
    (line,) = drawn(watcher)
    assert "1:02:05  train 0123" in line
    watcher.started(task("train"))
    (line,) = drawn(watcher)
    assert "waiting" not in line
    assert watcher.console.file.getvalue().count("wait  0:00:00  train 0123 is in use by process 7") == 1


def test_recipes_fit_the_terminal_with_the_demo_first(monkeypatch):
    console = terminal(80)
    monkeypatch.setattr("tdcompress.console.make_console", lambda: console)
    recipes._list(shipped_recipes())
    lines = console.file.getvalue().splitlines()
    assert lines[1].startswith("digits ")
    assert all(len(line.rstrip()) <= 80 for line in lines)
    names = {line.split()[0] for line in lines if not line.startswith(" ")}
    assert set(shipped_recipes()) <= names  # none is broken
    order = list(shipped_recipes())
    assert order.index("cifar10_resnet20") < order.index("paper/dependence")


def test_an_error_is_folded_between_words_and_keeps_its_advice(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "60")
    said = "the run long-name is in use by process 12 on a-host-with-a-name since noon; wait for it, or stop it and run again"
    shared.print_error(said)
    lines = stream.getvalue().splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert " ".join(line.strip() for line in lines) == f"tdcompress: {said}"


def test_names_of_files_and_layers_are_shown_as_they_are():
    """A closing tag of rich's markup would be an error after hours of training, an opening one a name cut short."""
    name = "/data[/old]/[v2] :rocket:/en"
    watcher = StageConsole(terminal(160))
    progress = watcher.started(task(f"train {name}"))
    progress.update(1, 2, f"reads {name}")
    (line,) = drawn(watcher)
    assert f"train {name} " in line
    assert line.rstrip().endswith(f"reads {name}")
    artifact = SimpleNamespace(record={"notes": [f"{name}: 3 lines left out"]}, files={})
    watcher.finished(task(f"train {name}"), artifact, 1.0)
    watcher.reused(task(f"train {name}"), artifact)
    watcher.waiting(name, 0.0)
    said = [line.rstrip() for line in watcher.console.file.getvalue().splitlines()]
    assert [line.partition(name)[1] for line in said] == [name] * 4
    assert said[1] == f"note  train {name}: {name}: 3 lines left out"


def test_what_a_verb_says_is_no_markup(capsys):
    make_console().print("Report and files: out[/old] [v2] :rocket:/report.html", highlight=False)
    assert capsys.readouterr().out == "Report and files: out[/old] [v2] :rocket:/report.html\n"
