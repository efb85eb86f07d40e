"""A name has one meaning: no two classes or functions of the package share theirs, and no two types that are not the same."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REPEATED = {"Settings"}  # one idea by design: of each stage what its key hashes
FUNCTIONS = {  # likewise, by the folder whose files offer them
    "add_parser": "commands",
    "pack": "commands",  # named as the verbs: pack, data pack
    "unpack": "commands",
    "run": "commands, stages",
    "main": "a program's",
    "render": "report",
    "render_document": "report",
    "tables": "report",
}


def types_of(text, where):
    """(name, what it is) of all classes, and of the types that a module names; equal for two that are the same."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name, f"class of {where}:{node.lineno}"
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        for target in targets:
            if isinstance(target, ast.Name) and node.value is not None and _is_type(target.id):
                yield target.id, ast.unparse(node.value)


def functions_of(text, where):
    """(name, where) of the functions that a module offers."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, where


def _is_type(name):
    """By its spelling: CamelCase; a lone capital too."""
    bare = name.lstrip("_")
    return bare[:1].isupper() and (len(bare) == 1 or not bare.isupper())


def repeated(texts, names_of=types_of):
    """Name -> what it is here and there, of those that are several things."""
    found = defaultdict(set)
    for where, text in texts.items():
        for name, what in names_of(text, where):
            found[name].add(what)
    return {name: sorted(meanings) for name, meanings in found.items() if len(meanings) > 1}


@pytest.fixture(scope="module")
def sources():
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "tdcompress").rglob("*.py")}
    assert len(texts) > 200
    return texts


def test_no_two_types_share_a_name(sources):
    found = repeated(sources)
    assert set(found) == REPEATED, f"rename all but one: { ({name: found[name] for name in set(found) - REPEATED}) }"


def test_no_two_functions_share_a_name(sources):
    texts = {where: text for where, text in sources.items() if where != "tdcompress/interface.py"}  # what it calls is named so
    found = repeated(texts, functions_of)
    assert set(found) == set(FUNCTIONS), f"rename all but one: { ({name: found[name] for name in set(found) - set(FUNCTIONS)}) }"


def test_what_counts_as_a_repeated_name():
    texts = {
        "a.py": "class Pool: ...\nScope = Literal['layer']\nRows: TypeAlias = list[int]\nMAX = 1\nT = TypeVar('T')\n",
        "b.py": "if True:\n    class Pool: ...\nScope = Literal['layer']\nRows = list[str]\nMAX = 2\nT = TypeVar('T')\n",
    }
    assert repeated(texts) == {"Pool": ["class of a.py:1", "class of b.py:2"], "Rows": ["list[int]", "list[str]"]}
    functions = {"a.py": "def size(): ...\ndef _own(): ...\n", "b.py": "class A:\n    def size(self): ...\n\ndef _own(): ...\n"}
    assert repeated(functions, functions_of) == {}
    assert repeated({**functions, "c.py": "def size(): ..."}, functions_of) == {"size": ["a.py", "c.py"]}
