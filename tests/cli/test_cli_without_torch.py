"""What is done where torch is not installed: verify, inspect, pack, time, and read sparse weights."""

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from tdcompress.storage.csr import save_arrays


@pytest.fixture
def deployed(command, without_torch, tmp_path):
    """A verb on a machine without torch; it has to do its work."""

    def run(*arguments, **options):
        done = command(*arguments, env=without_torch, cwd=tmp_path, **options)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


def test_a_run_is_verified_without_torch(deployed, tiny_root):
    out = deployed("verify", "tiny", "--artifacts", tiny_root)
    lines = {line.split()[1].rstrip(":"): line for line in out.splitlines()}
    assert set(lines) == {path.name for path in (tiny_root / "tiny").glob("*.onnx")}
    assert all("16 samples" in line for line in lines.values())


def test_files_are_inspected_packed_and_unpacked_without_torch(deployed, tiny_run, tmp_path):
    assert "conv1.weight" in deployed("inspect", tiny_run / "none-0.5-float32.onnx")
    packed, plain = tmp_path / "packed.onnx", tmp_path / "plain.onnx"
    assert "x0." in deployed("pack", tiny_run / "none-0.5-float32.onnx", packed, "--prefer", "size")
    assert f"wrote {plain}" in deployed("unpack", packed, plain)
    assert packed.stat().st_size < plain.stat().st_size
    onnx.checker.check_model(onnx.load(plain))


def test_what_another_machine_measured_joins_the_report_without_torch(deployed, call, copied, tmp_path):
    run = copied / "tiny"
    before = json.loads((run / "report.json").read_text())
    for name in ("none-0.5-int8.onnx", "none-0.5-float16.onnx"):
        (run / name).rename(tmp_path / name)
    out = deployed("bench", "tiny", "--artifacts", copied, "--shape", "2x1x8x8", "--json", tmp_path / "here.json", short=True)
    assert "batch 2, quick budget" in out
    timed = [row["file"] for row in json.loads((tmp_path / "here.json").read_text())["benchmark"]["rows"]]
    assert timed == ["model.onnx", "none-0.5-float32.onnx", "targeted-0.5.onnx"]
    for name in ("none-0.5-int8.onnx", "none-0.5-float16.onnx"):
        (tmp_path / name).rename(run / name)
    code, _, err = call("report", "tiny", "--artifacts", copied, "--bench", tmp_path / "here.json")
    assert code == 0
    assert f"{tmp_path / 'here.json'}: joined " in err
    assert "targeted-0.5" in err
    assert "onnxruntime, 1 thread, batch 2, on " in err
    again = call("report", "tiny", "--artifacts", copied, "--bench", tmp_path / "here.json")[2]
    assert again.count("(in place of what was measured before)") == 1
    after = json.loads((run / "report.json").read_text())
    joined = {row["id"]: [latency for latency in row["latency"] if latency["batch"] == 2] for row in after["rows"]}
    assert len(joined["targeted-0.5"]) == 1
    assert len(joined[before["selected"]]) == 1
    assert [row["latency"][0] for row in after["rows"]] == [row["latency"][0] for row in before["rows"]]
    deployed("verify", "tiny", "--artifacts", copied)


def test_sparse_weights_load_without_torch(without_torch, tmp_path):
    save_arrays({"w": np.eye(30, dtype=np.float32)}, tmp_path / "w.npz")
    program = "import sys, tdcompress as tdc; print(tdc.load_sparse(sys.argv[1])['w'].nnz)"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "w.npz")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **without_torch},
    )
    assert done.stdout.strip() == "30", done.stderr
