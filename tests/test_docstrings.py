"""Docstrings say what each argument is, the shapes of arrays, and what is raised.

A method without one overrides one that says it all.
"""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@cache
def trees():
    """File -> its syntax. When it is first asked for: who runs none of these tests reads nothing."""
    files = sorted((ROOT / "tdcompress").rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in files}


@cache
def classes():
    """Name -> class."""
    return {node.name: node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


@cache
def errors():
    """The names of the errors for users."""
    found = {"TdcompressError"}
    while more := {name for name, node in classes().items() if found & {ast.unparse(base) for base in node.bases}} - found:
        found |= more
    return found


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
    return found & errors()


def unsaid(function, text):
    """Which of them a docstring does not name; one that begins with "As" or "See" leaves that to another."""
    section = text.partition("Raises:")[2]
    named = {name for line in re.findall(r"^ *([\w, ]+):", section, flags=re.MULTILINE) for name in line.split(", ")}
    return set() if text.startswith(("See `", "As `")) else raised(function) - named


def overridden(owner, name):
    """The nearest documented method that one without a docstring stands for: of a base, or of a protocol."""
    bases = [ast.unparse(base).split("[")[0].rpartition(".")[2] for base in owner.bases]
    for base in (classes()[base] for base in bases if base in classes()):
        own = next((item for item in base.body if isinstance(item, ast.FunctionDef) and item.name == name), None)
        found = own if own is not None and ast.get_docstring(own) else overridden(base, name)
        if found is not None:
            return found
    protocols = [node for node in classes().values() if "Protocol" in {ast.unparse(base).split("[")[0] for base in node.bases}]
    methods = [item for node in protocols for item in node.body if isinstance(item, ast.FunctionDef) and item.name == name]
    return next((item for item in methods if ast.get_docstring(item)), None)


def arguments(function):
    """Name -> annotation or None."""
    every = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return {each.arg: each.annotation for each in every if each.arg not in ("self", "cls")}


ARRAYS = {"Tensor", "NDArray", "ndarray"}
SHAPE = re.compile(r"\([^()]*,[^()]*\)|\(\)|\bshapes?\b|\bscalar\b|\bbroadcast")
"""(N, C), (N,), () or in words. Other brackets with a comma pass too: better a miss than a false alarm."""


def is_array(annotation, aliases):
    """Whether what it annotates is an array, or holds some; a function of arrays is none."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Callable":
        return False
    name = annotation.id if isinstance(annotation, ast.Name) else getattr(annotation, "attr", "")
    return name in ARRAYS | aliases or any(is_array(child, aliases) for child in ast.iter_child_nodes(annotation))


def array_types(trees):
    """Names that modules give to types of arrays, without those whose docstring, the line after, says the shape."""
    found, described = set(), set()
    while True:
        before = len(found)
        for body in (tree.body for tree in trees):
            for node, after in zip(body, (*body[1:], None), strict=True):
                target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
                if isinstance(target, ast.Name) and target.id[:1].isupper() and is_array(node.value, found):
                    found.add(target.id)
                    if isinstance(after, ast.Expr) and SHAPE.search(ast.unparse(after)):
                        described.add(target.id)
        if len(found) == before:
            return found - described


def entries(text, section):
    """Name -> what a section of a docstring says of it; None where there is no such section."""
    rows = re.search(rf"^{section}:\n((?: .*\n?|\n)+)", text, flags=re.MULTILINE)
    if rows is None:
        return None
    found = re.findall(r"^    (\w[\w, *]*):((?:.*\n?)(?:     .*\n?)*)", rows[1], flags=re.MULTILINE)
    return {name: said for names, said in found for name in re.findall(r"\w+", names)}


def shapeless(node, aliases):
    """The arrays among a function's arguments, or a class's fields, whose shape its docstring leaves out.

    A name like `x_BTD` says it itself. Without a section of arguments or attributes the whole text counts.
    """
    text = ast.get_docstring(node)
    if text is None or text.startswith(("See `", "As `")):
        return []
    if isinstance(node, ast.ClassDef):
        fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
        named = {item.target.id: item.annotation for item in fields if not item.target.id.startswith("_")}
    else:
        named = arguments(node)
    arrays = [name for name, annotation in named.items() if annotation is not None and is_array(annotation, aliases)]
    said = entries(text, "Attributes" if isinstance(node, ast.ClassDef) else "Args")
    return [
        name
        for name in arrays
        if not re.search(r"_[A-Z]\w*$", name) and not SHAPE.search(text if said is None else said.get(name, ""))
    ]


@cache
def every_function():
    """(file, function, its class or None) of the package."""
    return [(where, function, owner) for where, tree in trees().items() for function, owner in functions(tree)]


@cache
def documented():
    """(file, function) of those with a docstring."""
    return [(where, function) for where, function, _ in every_function() if ast.get_docstring(function)]


def public_classes():
    """(file, class) of those that others may name, wherever they stand."""
    nodes = ((where, node) for where, tree in trees().items() for node in ast.walk(tree))
    return [(where, node) for where, node in nodes if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def is_constructor(item):
    """Whether an item of a class's body is its constructor."""
    return isinstance(item, ast.FunctionDef) and item.name == "__init__"


def test_what_a_function_raises_is_said():
    assert len(errors()) > 12
    assert sum(bool(raised(function)) for _, function in documented()) > 100
    found = [(f"{where}:{f.lineno} {f.name}", sorted(unsaid(f, ast.get_docstring(f)))) for where, f in documented()]
    assert not [each for each in found if each[1]], "a Raises section lacks an error"


def test_a_method_without_a_docstring_overrides_one_that_says_what_it_takes_and_raises():
    """`forward` of a torch module is torch's own name for what a module computes."""
    bare = [(where, function, owner) for where, function, owner in every_function() if not ast.get_docstring(function)]
    assert len(bare) > 30
    wrong = []
    for where, function, owner in bare:
        if function.name in ("forward", "backward"):
            continue
        base = None if owner is None else overridden(owner, function.name)
        text = ast.get_docstring(base) if base is not None else ""
        if not text or unsaid(function, text) or (len(arguments(function)) >= 3 and "Args:" not in text):
            wrong.append(f"{where}:{function.lineno} {function.name}")
    assert not wrong


def test_the_shape_of_an_array_is_said():
    types = array_types(trees().values())
    records = [each for each in public_classes() if "dataclass" in "".join(map(ast.unparse, each[1].decorator_list))]
    assert len(records) > 100
    looked_at = [*documented(), *records]
    found = [(f"{where}:{node.lineno} {node.name}", shapeless(node, types)) for where, node in looked_at]
    assert not [each for each in found if each[1]], "say it: (N, C), or 'of any shape'"


def test_a_function_or_constructor_of_three_arguments_says_what_each_is():
    """Or "As" and "See" what: another one that says it."""
    said = [(where, function, ast.get_docstring(function)) for where, function in documented()]
    made = [(where, node, item) for where, node in public_classes() for item in node.body if is_constructor(item)]
    said += [(where, item, ast.get_docstring(node) or "") for where, node, item in made]
    assert len(documented()) > 900
    assert len(made) > 60
    wrong = []
    for where, function, text in said:
        names = arguments(function)
        if len(names) >= 3 and not text.startswith(("See `", "As `")) and set(names) - set(entries(text, "Args") or ()):
            wrong.append(f"{where}:{function.lineno} {function.name}")
    assert not wrong


def test_what_counts_as_unsaid():
    lines = "def f():\n    def g():\n        raise DataError('g')\n    raise ModelError('f')\n"
    function = ast.parse(lines).body[0]
    assert raised(function) == {"ModelError"}
    assert unsaid(function, "Do.") == unsaid(function, "Do.\n\nRaises:\n    DataError: never.") == {"ModelError"}
    assert unsaid(function, "Do.\n\nRaises:\n    DataError, ModelError: both.") == set()
    assert unsaid(function, "As `other`.") == set()


def test_what_counts_as_shapeless():
    """Bad: a type without a docstring, an array in a mapping, a field. Good: said in words, by the name, or by the type."""
    lines = [
        "Rows = NDArray[np.int64]",
        "Batches = Sequence[Tensor]",
        "'(B, ...) each'",
        "def f(a: Rows, b: Batches, c: Mapping[str, Tensor], x_BC: Tensor, g: Callable[[Tensor], Tensor], d: Tensor | None):",
        "    '''Do.\n\n    Args:\n        a: rows.\n        b, c: such (as\n            these).\n        d: (N,).\n    '''",
        "def h(a: Rows, n: int):",
        "    'Rows (N, C) that are counted.'",
        "class K:",
        "    '''A.\n\n    Attributes:\n        a: rows.\n        b: of the same shape.\n    '''",
        "    a: Rows",
        "    b: Rows",
    ]
    tree = ast.parse("\n".join(lines))
    types = array_types([tree])
    assert types == {"Rows"}
    assert [shapeless(node, types) for node in tree.body[3:]] == [["a", "c"], [], ["a"]]
    assert entries(ast.get_docstring(tree.body[3]), "Args")["c"].split() == ["such", "(as", "these)."]
