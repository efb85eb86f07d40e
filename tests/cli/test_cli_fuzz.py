"""Every argument of every verb, given wrongly: exit code 2 and one line that says so, no traceback, nothing written."""

import shutil
from pathlib import Path

import pytest

from tdcompress.cli import main

READ = ("nowhere", "folder", "empty", "noise", "text", "unreadable", "file/below", "", "x" * 300)
WRITTEN = ("folder", "file/below", "", "x" * 300)
FOLDERS = ("noise", "text", "unreadable", "file/below", "", "x" * 300)
WORDS = ("nowhere", "", "x" * 300, "\udcff", "../up", "=", "1e999")
NUMBERS = ("0", "-1", "nan", "-inf", "1e", "9" * 5000, "", "x", "0x10", "\udcff")
WHOLE = tuple(number for number in NUMBERS if number != "0")  # which stands for all cores
SHAPES = ("0x1x8x8", "x", "", "1xx8", "1x" + "9" * 30, "1x1x99999999999x99999999999", "²x1x8x8", "1", "9" * 5000)
CHANGES = (
    "", "=", "x", "=1", "\udcff=1", "train=1", "train..epochs=1", "train.epochs.x=1", "train.epochs=", "train.epochs=nan",
    "train.epochs=1e999", "train.epochs=" + "9" * 5000, "seed=-1",
    "seed=" + "9" * 30, "name=", "name=..", "model.width=0", "model.width=" + "9" * 15, "model.width=" + "9" * 30,
    "prune.exclude=" + "[" * 2000, "train.optimizer.lr=" + "9" * 400,
)  # fmt: skip
CALLS = {
    READ: (
        "run X", "report tiny --artifacts X", "report tiny --bench X", "verify X", "verify tiny --artifacts X", "inspect X",
        "inspect tiny --artifacts X", "inspect X --backend engine", "pack X out.onnx", "unpack X out.onnx",
        "bench X --baseline dense.onnx", "bench dense.onnx --baseline X", "compile X out.tdc", "artifacts import X",
        "artifacts export --recipe X", "translate X one", "translate tiny one --artifacts X",
        "data pack cifar10 --root X --out out", "data unpack X",
    ),
    WRITTEN: (
        "recipes --write-keys X", "pack dense.onnx X", "unpack dense.onnx X", "bench dense.onnx --json X", "compile dense.onnx X",
    ),
    FOLDERS: (
        "run digits --artifacts X", "status --artifacts X", "artifacts list --artifacts X",
        "artifacts export --stage train --artifacts X", "library X", "data pack cifar10 --root nowhere --out X",
        "data unpack nowhere --root X",
    ),
    WORDS: (
        "X", "run digits --only X", "run digits --device X", "status X", "report X", "report tiny --compare X",
        "recipes --copy X", "pack dense.onnx out.onnx --values X", "pack dense.onnx out.onnx --prefer X",
        "bench dense.onnx --backend X", "bench dense.onnx --provider X", "bench dense.onnx --budget X",
        "inspect dense.onnx --backend X", "compile dense.onnx out.tdc --isa X", "artifacts export X",
        "artifacts export --stage X", "artifacts X", "data X", "data pack X --out out",
        "translate X one", "translate tiny one --row X",
    ),
    NUMBERS: (
        "run digits --only train --together X", "translate tiny one --beam X", "bench dense.onnx --batch X",
        "artifacts export --stage train --part-size X", "artifacts export --stage train --max-parts X",
    ),
    tuple(number for number in NUMBERS if number != "0"): ("translate tiny one --alpha X",),
    tuple(number for number in NUMBERS if number != "9" * 5000): ("run digits --minutes X",),  # which is for ever
    (*WHOLE, "9" * 400): ("bench dense.onnx --threads X", "translate tiny one --threads X"),
    ("9" * 400,): ("bench dense.onnx --batch X", "artifacts export --stage train --part-size X"),
    SHAPES: (
        "bench dense.onnx --shape X", "inspect dense.onnx --backend engine --shape X", "compile dense.onnx out.tdc --shape X",
    ),
    CHANGES: ("run digits --set X", "artifacts export --recipe digits --set X"),
}  # fmt: skip
NO_BUNDLE = dict.fromkeys(("empty", "noise", "text", "unreadable"), "damaged, or not from `tdcompress artifacts export`")
# What could be damage as well as a slip has the exit code of a fault.
FAULTS = {"verify X": {"folder": "manifest.json: is missing"}, "artifacts import X": NO_BUNDLE}


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny_root):
    """The current folder, with a model, a run, and what is neither."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tdcompress.pipeline.Runner.ensure", lambda *_: pytest.fail("a stage began"))
    shutil.copytree(tiny_root, "artifacts")
    shutil.copy("artifacts/tiny/dense.onnx", "dense.onnx")
    Path("folder").mkdir()
    for name, content in {"file": b"", "empty": b"", "noise": bytes(range(256)), "text": b"hello\n"}.items():
        Path(name).write_bytes(content)
    Path("unreadable").write_bytes(bytes(range(256)))  # to root it is noise
    Path("unreadable").chmod(0)
    return tmp_path


@pytest.mark.parametrize(("call", "values"), [(call, values) for values, calls in CALLS.items() for call in calls])
def test_a_wrong_argument_is_refused_in_one_line(folder, capsys, call, values):
    before = sorted(path.name for path in folder.iterdir())
    for given in values:
        try:
            code = main([given if word == "X" else word for word in call.split()])
        except SystemExit as stop:  # argparse's way
            code = stop.code
        out, err = capsys.readouterr()
        fault = FAULTS.get(call, {}).get(given)
        assert (code, out) == (1 if fault else 2, ""), (given[:40], err)
        *others, line = err.splitlines()
        usage = line.split(": ")[1] == "error"
        assert line.startswith("tdcompress"), (given[:40], err)
        assert usage or all(other.startswith("bench: ") for other in others), (given[:40], err)
        assert fault is None or fault in line
    assert sorted(path.name for path in folder.iterdir()) == before
