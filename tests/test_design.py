"""docs/design.md is true: what it names is there, and "What to touch" is held against the code."""

import ast
import dataclasses
import inspect
import re
import typing
from functools import cache
from pathlib import Path

import pytest

from tdcompress.bench.backends import BACKENDS
from tdcompress.bench.host import PACKAGES
from tdcompress.commands import bench as bench_verb
from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.recipes.experiment import table_types
from tdcompress.recipes.keys import NAMED
from tdcompress.runs import manifest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tdcompress"
PAGE = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
FOLDERS, TOUCHED = (re.split(r"\n#+ ", PAGE.split(f"\n{title}\n")[1])[0] for title in ("## Folders", "### What to touch"))
# The plain method and targeted dropout are more than two methods among others, and pruning names rows.
SPECIAL = {"tdcompress.methods.none", "tdcompress.methods.targeted", "tdcompress.stages.prune"}
NAME = re.compile(r"`([\w./]+(?:\.\w+|/))`")
ENTRY = re.compile(r"^- \*\*(.+?)\*\*(.*(?:\n +.*)*)", re.MULTILINE)  # of a list, with the lines that are indented below it


def rows(listed):
    """What an entry is about -> the files that it names."""
    return {about: set(NAME.findall(rest)) for about, rest in ENTRY.findall(listed)}


def test_the_design_page_names_every_part_of_the_package_and_only_files_that_are_there():
    named = set()
    for line in (*re.findall(r"^\|.*", FOLDERS, re.MULTILINE), *(rest for _, rest in ENTRY.findall(TOUCHED))):
        names = NAME.findall(line)
        places = (ROOT, PACKAGE, PACKAGE / names[0] if names else ROOT)
        missing = [name for name in names if not any((place / name).exists() for place in places)]
        assert not missing, line
        named |= set(names)
    parts = {path.name + "/" * path.is_dir() for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    assert len(parts) > 30
    assert parts <= named
    assert len(named) > 60


@pytest.mark.parametrize("folder", ["runs", "cluster"])
def test_a_folder_whose_files_are_told_one_by_one_has_them_all(folder):
    (row,) = re.findall(rf"^\| `{folder}/` \| (.*)", FOLDERS, re.MULTILINE)
    assert {path.name for path in (PACKAGE / folder).glob("[!_]*.py")} <= set(NAME.findall(row))


def test_what_a_reader_may_want_to_add_has_a_row():
    wanted = {
        "a recipe key",
        "a stage",
        "a table of the recipe",
        "an ONNX encoding",
        "a model",
        "a data set",
        "a method",
        "a task",
    }
    assert wanted | {"a benchmark backend"} <= rows(TOUCHED).keys()


def owners(kind, found):
    """The dataclasses that own keys of a table: itself, what it inherits from, and those of its fields."""
    if kind in found:
        return
    found |= {each for each in kind.__mro__ if dataclasses.is_dataclass(each)}
    for hint in typing.get_type_hints(kind).values():
        for each in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(each) and isinstance(each, type):
                owners(each, found)


def file_of(kind):
    return Path(inspect.getfile(kind)).relative_to(PACKAGE).as_posix()


def test_the_row_of_a_recipe_key_names_every_file_that_owns_one():
    components = {kind for _, registry in NAMED.values() for kind in registry.values()}
    found = set()
    for kind in (*table_types().values(), *components):
        owners(kind, found)
    own = {file_of(kind) for kind in components}
    shared = {file_of(kind) for kind in found if any(field in kind.__annotations__ for field in kind.__dataclass_fields__)} - own
    named = {name for name in rows(TOUCHED)["a recipe key"] if not name.startswith(("tests/", "docs/"))}
    assert len(shared) > 8
    assert named == shared


@cache
def importers():
    """Module -> the files of the package that import it."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for module in (node.module, *(f"{node.module}.{each.name}" for each in node.names)):
                    found.setdefault(module, set()).add(path.relative_to(PACKAGE).as_posix())
    return found


def components(folder, registry):
    """The files whose components stand in a registry."""
    prefix = f"tdcompress.{folder.replace('/', '.')}."
    found = (module for module, files in importers().items() if module.startswith(prefix) and registry in files)
    return [
        module
        for module in found
        if (PACKAGE.parent / f"{module.replace('.', '/')}.py").is_file() and not module.endswith((".base", ".user_models"))
    ]


@pytest.mark.parametrize(
    ("row", "folder", "registry"),
    [
        ("a stage", "stages", "runs/plan.py"),
        ("an ONNX encoding", "onnxfile/encodings", "onnxfile/encodings/__init__.py"),
        ("a model", "models", "models/registry.py"),
        ("a data set", "data", "data/registry.py"),
        ("a method", "methods", "methods/registry.py"),
        ("a task", "tasks", "tasks/registry.py"),
        ("a benchmark backend", "bench/backends", "bench/backends/__init__.py"),
    ],
)
def test_whoever_imports_a_component_is_named_in_its_row(row, folder, registry):
    found = rows(TOUCHED)
    named = found[row] | (found["a table of the recipe"] if row == "a stage" else set())
    modules = components(folder, registry)
    assert len(modules) > 1
    for module in modules:
        if module in SPECIAL:
            continue
        outside = {file for file in importers()[module] if not file.startswith(f"{folder}/") or file == registry}
        assert {file for file in outside if f"{Path(file).parent}/" not in named} <= named, module


def test_every_encoding_and_backend_is_told_where_its_row_says():
    packing = (ROOT / "docs" / "packing.md").read_text(encoding="utf-8")
    assert set(ENCODINGS) <= set(re.findall(r"^\| `(\w+)` \|", packing, re.MULTILINE))
    benchmarking = (ROOT / "docs" / "benchmarking.md").read_text(encoding="utf-8")
    assert set(BACKENDS) <= set(re.findall(r"^\| `(\w+)` \|", benchmarking, re.MULTILINE))
    assert ", ".join(BACKENDS) in inspect.getsource(bench_verb)
    assert set(BACKENDS) - {"engine", "null"} <= set(PACKAGES)


def literals(path):
    """All constants that stand in a file."""
    return {node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)}


def test_the_files_of_a_run_are_named_in_one_place():
    """`model.onnx` is also what a stage calls its file, which lies in a folder of its own; samples are named alike everywhere."""
    names = {manifest.MANIFEST, manifest.REPORT, manifest.RECIPE, manifest.STAGES, manifest.SAMPLES, manifest.DENSE_FILE}
    names |= {manifest.SELECTED_FILE}
    found = {(path.relative_to(PACKAGE).as_posix(), name) for path in PACKAGE.rglob("*.py") for name in names & literals(path)}
    assert found == {
        ("artifacts.py", "manifest.json"),
        ("onnxfile/names.py", "samples.npz"),
        ("report/files.py", "report.json"),
        ("report/files.py", "dense.onnx"),
        ("report/files.py", "model.onnx"),
        ("runs/manifest.py", "recipe.toml"),
        ("runs/manifest.py", "stages.json"),
        ("stages/export.py", "model.onnx"),
        ("tasks/classification.py", "model.onnx"),
        ("text/names.py", "model.onnx"),
    }


def test_outside_reports_the_files_of_a_run_are_asked_of_its_manifest():
    asking = {file for file in importers()["tdcompress.report.files"] if not file.startswith("report/")}
    assert asking == {"runs/manifest.py"}
