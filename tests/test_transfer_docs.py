"""The script of docs/transfer.md runs as it stands, but for its numbers, with names of the public interface alone."""

import ast
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import tdcompress as tdc

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "transfer.md").read_text(encoding="utf-8")
SMALLER = {
    'ARCHITECTURE, SIZE, BATCH = "resnet18", 224, 64': 'ARCHITECTURE, SIZE, BATCH = "resnet18", 32, 4',
    "LR = 10, 10, 0.5, 0.01": "LR = 1, 1, 0.5, 0.01",
}


def script() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    return found


def images(folder: Path) -> None:
    """Three classes of noise with a colour each."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 4)):
        for label, name in enumerate(("red", "green", "blue")):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 100, (40, 36, 3), dtype=np.uint8)
                pixels[..., label] += 150
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")


def test_the_script_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    short_benchmarks: Callable[[], AbstractContextManager[None]],
) -> None:
    text = script()
    for whole, small in SMALLER.items():
        assert text.count(whole) == 1
        text = text.replace(whole, small)
    images(tmp_path / "images")
    weights = torchvision.models.resnet18(weights=None).state_dict()  # of 1,000 classes, in the place of trained ones
    torch.save(weights, tmp_path / "resnet18-f37072fd.pth")
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(), short_benchmarks():
        torch.manual_seed(0)
        exec(compile(text, "transfer.py", "exec"), {"__name__": "__main__"})
    told = capsys.readouterr().out
    assert "starts anew: fc.weight, fc.bias" in told
    assert "its head has 1000 outputs, this one 3" in caplog.text
    for word in ("before pruning", "pruned", "fine-tuned"):
        assert re.search(rf"^{word}: \d+\.\d\d%$", told, flags=re.MULTILINE), told
    assert re.search(r"^time / dense time: \d+\.\d\d$", told, flags=re.MULTILINE)
    layers = re.findall(r"^(?:conv1|layer\S+|fc) +\d+ -> \d+(.*)$", told, flags=re.MULTILINE)
    assert len(layers) == 21
    assert not any(why.strip() for why in layers), "what dies leaves"
    dense, model = (tmp_path / name for name in ("dense.onnx", "model.onnx"))
    assert model.stat().st_size < 0.5 * dense.stat().st_size
    assert tdc.verify(model)


def test_public_names_alone() -> None:
    tree = ast.parse(script())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} == {"torch", "torchvision", "tdcompress"}
    assert not any(name.startswith("tdcompress.") for name in imported)
    used = set(re.findall(r"\btdc\.(\w+)", TEXT))
    assert used <= set(tdc.__all__)
    assert {"load_weights", "TargetedDropout", "prune", "freeze", "narrow_state", "shrink", "export_onnx", "benchmark"} <= used
