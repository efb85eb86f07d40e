"""``tdcompress bench`` as people call it: what is timed against what, and what is refused before anything is timed."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tdcompress.commands.bench import find_files


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


def test_what_a_copying_system_leaves_is_no_network(tiny_run, tmp_path):
    for name in ("dense.onnx", "model.onnx"):
        shutil.copy(tiny_run / name, tmp_path / name)
        (tmp_path / f"._{name}").write_bytes(b"\0\5\x16\7")  # macOS keeps its own notes of a file so
    assert find_files([tmp_path], None, tmp_path) == ([tmp_path / "model.onnx"], tmp_path / "dense.onnx")


def test_a_benchmark_that_cannot_be_written_is_shown(call, tiny_run, tmp_path, short_benchmarks, monkeypatch):
    """A disk that is full by now: half an hour was measured."""

    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("tdcompress.files.write_text", full)
    with short_benchmarks():
        code, out, err = call("bench", tiny_run / "model.onnx", "--json", tmp_path / "here.json")
    assert code == 1
    assert "dense against itself" in out
    assert "here.json: No space left on device" in err


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_a_benchmark_that_is_told_to_end_leaves_nothing_behind(tiny_run, tmp_path):
    command = [sys.executable, "-m", "tdcompress", "bench", str(tiny_run / "model.onnx")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        said = iter(process.stderr)
        assert any(line.startswith("bench: process 1 of") for line in said)
        assert len(list(tmp_path.glob("tdcompress-*"))) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert list(said)[-1] == "tdcompress: interrupted\n"
    assert list(tmp_path.glob("tdcompress-*")) == []


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
