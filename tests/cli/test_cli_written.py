"""Files that verbs write: a path that cannot be written is told before any work, and missing folders are made."""

import os
from pathlib import Path

import pytest

from tdcompress.cli import main

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


@pytest.mark.parametrize("verb", ["pack", "unpack", "compile", "emit-c", "bench", "recipes", "artifacts export"])
def test_a_folder_where_nothing_can_be_written_is_told_before_any_work(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # as on a file system that is read-only
    with pytest.raises(SystemExit, match="2"):
        main([*WRITES[verb], str(tmp_path / "below" / "out")])
    assert f"cannot be written, since nothing can be in the folder {tmp_path}" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "below").exists()


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
