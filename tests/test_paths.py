"""Every public function takes a path as text, as a Path, and as anything else that is os.PathLike."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tdcompress as tdc
from tdcompress.errors import UserError


class Other:
    """A path that is no Path."""

    def __init__(self, path: object) -> None:
        self.path = str(path)

    def __fspath__(self) -> str:
        return self.path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, words_root: Path) -> Path:
    """Networks in the forms that the functions read."""
    folder = tmp_path_factory.mktemp("paths")
    shutil.copytree(words_root / "artifacts" / "words", folder / "words")
    tdc.export_onnx(network(), torch.ones(2, 4), folder / "m.onnx")
    tdc.save_sparse(network(), folder / "w.npz")
    torch.save(network().state_dict(), folder / "w.pth")
    return folder


def network() -> nn.Module:
    model = nn.Linear(4, 3)
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    return model.eval()


def run_engine(path: object) -> None:
    tdc.engine.Session(path).run(None, {"input": np.ones((1, 4), np.float32)})


CALLS: dict[str, Callable[[Path, Callable[[Path], object]], object]] = {
    "Translator": lambda here, to: tdc.Translator(to(here / "words"))(["one"]),
    "export_onnx": lambda here, to: tdc.export_onnx(network(), torch.ones(2, 4), to(here / "again.onnx")),
    "save_sparse": lambda here, to: tdc.save_sparse(network(), to(here / "again.npz")),
    "load_weights": lambda here, to: tdc.load_weights(network(), to(here / "w.pth")),
    "load_sparse": lambda here, to: tdc.load_sparse(to(here / "w.npz")),
    "pack_onnx": lambda here, to: tdc.pack_onnx(to(here / "m.onnx"), to(here / "packed.onnx")),
    "unpack_onnx": lambda here, to: tdc.unpack_onnx(to(here / "m.onnx"), to(here / "dense.onnx")),
    "verify": lambda here, to: tdc.verify(to(here / "m.onnx")),
    "benchmark": lambda here, to: tdc.benchmark([to(here / "m.onnx")], baseline=to(here / "m.onnx"), backend="null"),
    "engine": lambda here, to: run_engine(to(here / "m.onnx")),
    "run": lambda here, to: tdc.run(to(here / "missing.toml"), artifacts=to(here)),
}
PATHLESS = {
    "Cubic",
    "Ramp",
    "Schedule",
    "TargetedDropout",
    "build_model",
    "freeze",
    "narrow",
    "narrow_state",
    "prune",
    "recalibrate",
    "shrink",
}


def test_every_name_of_the_interface_is_here_or_takes_no_path() -> None:
    assert set(CALLS) | PATHLESS == set(tdc.__all__)


@pytest.mark.parametrize("kind", [str, Path, Other])
@pytest.mark.parametrize("name", CALLS)
def test_a_path_is_anything_that_names_a_file(
    folder: Path, tmp_path: Path, name: str, kind: type, short_benchmarks: Callable[[], AbstractContextManager[None]]
) -> None:
    here = Path(shutil.copytree(folder, tmp_path / "here"))
    assert isinstance(kind(here), str | os.PathLike)
    if name == "run":  # a whole run is in the end-to-end tests; a path is understood where the file's name is in the message
        with pytest.raises(UserError, match=r"missing\.toml: no such recipe"):
            CALLS[name](here, kind)
    else:
        with short_benchmarks():
            CALLS[name](here, kind)


@pytest.mark.parametrize("kind", [str, Path, Other])
def test_a_folder_is_verified_by_any_path(tiny_run: Path, kind: type) -> None:
    assert "dense.onnx" in tdc.verify(kind(tiny_run))
