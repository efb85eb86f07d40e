"""A name has one meaning: no two classes of the package share theirs, and no two types that are not the same."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPEATED = {"Settings"}  # one idea by design: of each stage what its key hashes


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


def _is_type(name):
    """By its spelling: CamelCase; a lone capital too."""
    bare = name.lstrip("_")
    return bare[:1].isupper() and (len(bare) == 1 or not bare.isupper())


def repeated(texts):
    """Name -> what it is here and there, of those that are several things."""
    found = defaultdict(set)
    for where, text in texts.items():
        for name, what in types_of(text, where):
            found[name].add(what)
    return {name: sorted(meanings) for name, meanings in found.items() if len(meanings) > 1}


def test_no_two_types_share_a_name():
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "tdcompress").rglob("*.py")}
    assert len(texts) > 200
    found = repeated(texts)
    assert set(found) == REPEATED, f"rename all but one: { ({name: found[name] for name in set(found) - REPEATED}) }"


def test_what_counts_as_a_repeated_name():
    texts = {
        "a.py": "class Pool: ...\nScope = Literal['layer']\nRows: TypeAlias = list[int]\nMAX = 1\nT = TypeVar('T')\n",
        "b.py": "if True:\n    class Pool: ...\nScope = Literal['layer']\nRows = list[str]\nMAX = 2\nT = TypeVar('T')\n",
    }
    assert repeated(texts) == {"Pool": ["class of a.py:1", "class of b.py:2"], "Rows": ["list[int]", "list[str]"]}
