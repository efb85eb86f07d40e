"""Docstrings say what a function raises; a method without one overrides one that says it all."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "tdcompress").rglob("*.py"))
}
CLASSES = {node.name: node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
ERRORS = {"TdcompressError"}
while more := {name for name, node in CLASSES.items() if ERRORS & {ast.unparse(base) for base in node.bases}} - ERRORS:
    ERRORS |= more


def functions(node, owner=None):
    """(function, its class or None) of all that others may call."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from functions(child, child)
        elif isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            yield child, owner


def raised(function):
    """The errors for users that stand in a function's own `raise` statements."""
    found, waiting = set(), list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Raise) and node.exc is not None:
            found.add(ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc))
    return found & ERRORS


def unsaid(function, text):
    """Which of them a docstring does not name; one that begins with "As" or "See" leaves that to another."""
    section = text.partition("Raises:")[2]
    named = {name for line in re.findall(r"^ *([\w, ]+):", section, flags=re.MULTILINE) for name in line.split(", ")}
    return set() if text.startswith(("See `", "As `")) else raised(function) - named


def overridden(owner, name):
    """The nearest documented method that one without a docstring stands for: of a base, or of a protocol."""
    bases = [ast.unparse(base).split("[")[0].rpartition(".")[2] for base in owner.bases]
    for base in (CLASSES[base] for base in bases if base in CLASSES):
        own = next((item for item in base.body if isinstance(item, ast.FunctionDef) and item.name == name), None)
        found = own if own is not None and ast.get_docstring(own) else overridden(base, name)
        if found is not None:
            return found
    protocols = [node for node in CLASSES.values() if "Protocol" in {ast.unparse(base).split("[")[0] for base in node.bases}]
    methods = [item for node in protocols for item in node.body if isinstance(item, ast.FunctionDef) and item.name == name]
    return next((item for item in methods if ast.get_docstring(item)), None)


FUNCTIONS = [(where, function, owner) for where, tree in TREES.items() for function, owner in functions(tree)]
DOCUMENTED = [(where, function) for where, function, _ in FUNCTIONS if ast.get_docstring(function)]
BARE = [(where, function, owner) for where, function, owner in FUNCTIONS if not ast.get_docstring(function)]


def test_what_a_function_raises_is_said():
    assert len(ERRORS) > 12
    assert sum(bool(raised(function)) for _, function in DOCUMENTED) > 100
    found = [(f"{where}:{f.lineno} {f.name}", sorted(unsaid(f, ast.get_docstring(f)))) for where, f in DOCUMENTED]
    assert not [each for each in found if each[1]], "a Raises section lacks an error"


def test_a_method_without_a_docstring_overrides_one_that_says_what_it_takes_and_raises():
    """`forward` of a torch module is torch's own name for what a module computes."""
    assert len(BARE) > 30
    wrong = []
    for where, function, owner in BARE:
        if function.name in ("forward", "backward"):
            continue
        base = None if owner is None else overridden(owner, function.name)
        text = ast.get_docstring(base) if base is not None else ""
        names = [each.arg for each in (*function.args.args, *function.args.kwonlyargs) if each.arg not in ("self", "cls")]
        if not text or unsaid(function, text) or (len(names) >= 3 and "Args:" not in text):
            wrong.append(f"{where}:{function.lineno} {function.name}")
    assert not wrong


def test_what_counts_as_unsaid():
    lines = "def f():\n    def g():\n        raise DataError('g')\n    raise ModelError('f')\n"
    function = ast.parse(lines).body[0]
    assert raised(function) == {"ModelError"}
    assert unsaid(function, "Do.") == unsaid(function, "Do.\n\nRaises:\n    DataError: never.") == {"ModelError"}
    assert unsaid(function, "Do.\n\nRaises:\n    DataError, ModelError: both.") == set()
    assert unsaid(function, "As `other`.") == set()
