"""What the package promises of its parts: the deployment half works, and is imported, where torch is not installed."""

import ast
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tdcompress

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_TORCH = (
    "artifacts",
    "pipeline",
    "codec",
    "records",
    "errors",
    "files",
    "locks",
    "console",
    "cli",
    "recipes.source",
    "recipes.sweep",
    "recipes.shipped",
    "runs.finished",
    "runs.folder",
    "runs.manifest",
    "runs.parts",
    "runs.status",
    "runs.translator",
    "runs.unfinished",
    "runs.verification",
    "inspection",
    "report",
    "storage",
    "onnxfile",
    "engine",
    "bench",
    "text",
    "transfer",
    "commands",
)


def modules(name):
    """A module and, of a folder, all below it."""
    path = ROOT / "tdcompress" / name
    below = pkgutil.walk_packages([str(path)], f"tdcompress.{name}.") if path.is_dir() else ()
    return [f"tdcompress.{name}", *(module.name for module in below)]


def python(program, env, *arguments):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **env}
    )


def test_the_deployment_half_imports_without_torch(without_torch):
    names = [module for name in WITHOUT_TORCH for module in modules(name)]
    assert len(names) > 80
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(len(sys.argv) - 1, sorted({'torch', 'torchvision'} & set(sys.modules)))"
    )
    done = python(program, without_torch, *names)
    assert done.stdout.strip() == f"{len(names)} []", done.stderr[-2000:]


def test_the_block_hides_torch(without_torch):
    done = python("import importlib.util; print(importlib.util.find_spec('torch')); import torch", without_torch)
    assert done.stdout.strip() == "None"
    assert "No module named 'torch'" in done.stderr


def test_the_deployment_names_of_the_interface_work_without_torch(without_torch):
    program = (
        "import tdcompress as tdc\n"
        "for name in ('Translator', 'benchmark', 'pack_onnx', 'unpack_onnx', 'verify', 'load_sparse', 'engine'):\n"
        "    getattr(tdc, name)\n"
        "print('ok')"
    )
    done = python(program, without_torch)
    assert done.stdout.strip() == "ok", done.stderr[-2000:]


def test_the_interface_is_lazy():
    program = (
        "import sys, tdcompress; print(sorted(name for name in sys.modules if name.split('.')[0] in ('torch', 'onnx', 'scipy')))"
    )
    assert python(program, {"PYTHONPATH": str(ROOT)}).stdout.strip() == "[]"


def test_every_name_of_the_interface_is_there():
    expected = {
        "Cubic", "Ramp", "Schedule", "TargetedDropout", "Translator", "benchmark", "build_model", "engine", "export_onnx",
        "freeze", "load_sparse", "load_weights", "narrow", "narrow_state", "pack_onnx", "prune", "recalibrate", "run",
        "save_sparse", "shrink", "unpack_onnx", "verify",
    }  # fmt: skip
    assert set(tdcompress.__all__) == expected
    assert expected <= set(dir(tdcompress))
    assert all(getattr(tdcompress, name) is not None for name in expected)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tdcompress.nothing  # noqa: B018


def test_the_folder_of_shrinking_and_the_function_have_names_of_their_own():
    program = (
        "import tdcompress.shrinking.groups, tdcompress.shrinking.exact, tdcompress.interface\n"
        "print(tdcompress.shrink is tdcompress.interface.shrink, tdcompress.shrinking.groups.__name__)"
    )
    assert python(program, {"PYTHONPATH": str(ROOT)}).stdout.split() == ["True", "tdcompress.shrinking.groups"]


def test_every_package_of_the_base_install_is_imported():
    """A dependency that nothing imports is none; what only another package needs, that package names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in project["dependencies"]}
    imported = set()
    for path in (ROOT / "tdcompress").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            imported |= {name.split(".")[0] for name in names}
    assert {"numpy", "onnx", "onnxruntime"} <= needed
    assert needed <= imported


def test_no_pickle_and_no_execution_of_text():
    """Weights are safetensors or .npz without objects; CIFAR's own archives go through a restricted reader."""
    allowed = {
        "data/cifar_archive.py": {"pickle"},
        "models/weights.py": {"pickle", "torch.load(", "torch.save("},
    }  # a message says how to save
    loader = (ROOT / "tdcompress" / "models" / "weights.py").read_text(encoding="utf-8")
    assert re.findall(r"torch\.load\(.*|pickle\.\w+", loader) == [
        'torch.load(path, map_location="cpu", weights_only=True)',
        "pickle.UnpicklingError",
    ]  # no code of a file runs: its own tests
    found = {}
    for path in (ROOT / "tdcompress").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        words = {
            word
            for word in ("pickle", "torch.save(", "torch.load(", "eval(compile", "exec(", "allow_pickle=True")
            if _uses(text, word)
        }
        if words:
            found[path.relative_to(ROOT / "tdcompress").as_posix()] = words
    assert found == allowed


def test_all_json_is_read_by_one_reader():
    """So that what a person, a kill or another version left is told in one wording. DeepSparse's child cannot import ours."""
    reading = re.compile(r"\bjson\.(loads?\b|JSONDecoder)|from json import")
    readers = {
        path.relative_to(ROOT / "tdcompress").as_posix()
        for path in (ROOT / "tdcompress").rglob("*.py")
        if reading.search(path.read_text(encoding="utf-8"))
    }
    assert readers == {"codec.py", "bench/backends/deepsparse_child.py"}


def _uses(text, word):
    if word == "pickle":
        return "import pickle" in text or "from pickle" in text
    return word in text
