"""The command itself: its words and its version, how it warns, and what no verb finds."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tdcompress
from tdcompress.cli import main, make_parser


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


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"tdcompress {tdcompress.__version__}\n")


def test_the_package_is_a_command_of_a_checkout(tmp_path):
    root = Path(__file__).resolve().parents[2]
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
