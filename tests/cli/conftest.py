"""Verbs as people call them: exit codes, one clear line on stderr, and a run that may be changed."""

import shutil
from pathlib import Path

import pytest

from tdcompress.cli import main


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
