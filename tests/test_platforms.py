"""The deployment half where the system is not POSIX: what Windows lacks is hidden, and every verb does its work."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import elsewhere
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress import Translator

ROOT = Path(__file__).resolve().parent.parent
NAME = "poids αβ→"  # letters that most code pages of Windows lack


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of a Python without POSIX, its text in a code page."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text("import elsewhere\n\nelsewhere.arrive()\n", encoding="utf-8")
    path = os.pathsep.join(map(str, (folder, ROOT / "tests" / "support", ROOT)))
    codepage = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "cp1252"}
    return {**os.environ, **codepage, "PYTHONPATH": path}


@pytest.fixture(scope="module")
def python(environment):
    def run(*arguments, **changes):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            encoding="cp1252",
            check=False,
            timeout=300,
            env={**environment, **changes},
        )

    return run


@pytest.fixture(scope="module")
def verb(python):
    """``verb("inspect", file)``: what it printed."""

    def run(*arguments, **changes):
        done = python("-m", "tdcompress", *arguments, **changes)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A file with a pruned weight, and samples beside it."""
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((256, 64)).astype(np.float32)
    weights[generator.random(weights.shape) < 0.9] = 0
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", NAME], ["output"])],
        "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ("batch", 256))],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ("batch", 64))],
        [numpy_helper.from_array(weights, NAME)],
    )
    path = tmp_path_factory.mktemp("models") / "dense.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    samples = generator.standard_normal((4, 256)).astype(np.float32)
    np.savez(path.parent / "samples.npz", **{"input": samples, "output/dense.onnx": samples @ weights})
    return path


def test_nothing_of_posix_is_left(python):
    program = (
        "import importlib.util, os, signal, pathlib, elsewhere\n"
        "print([name for name in elsewhere.MODULES if importlib.util.find_spec(name)],"
        " [name for name in elsewhere.FUNCTIONS if hasattr(os, name)],"
        " [name for name in elsewhere.SIGNALS if hasattr(signal, name)])\n"
        "for path in ('/proc/self/status', '/sys'):\n"
        "    try:\n"
        "        pathlib.Path(path).read_text()\n"
        "    except OSError as error:\n"
        "        print(type(error).__name__)\n"
        "print(pathlib.Path(os.devnull).open().encoding)\n"
    )
    done = python("-c", program)
    assert done.stdout.splitlines() == ["[] [] []", "FileNotFoundError", "FileNotFoundError", "ANSI_X3.4-1968"], done.stderr


def test_a_file_is_verified_inspected_packed_and_unpacked(verb, model, tmp_path):
    assert verb("verify", model).startswith("ok  dense.onnx: valid, loads, 4 samples, largest difference ")
    packed, dense = tmp_path / "packed.onnx", tmp_path / "again.onnx"
    assert verb("pack", model, packed).startswith(f"wrote {packed}: ")
    assert packed.stat().st_size < 0.3 * model.stat().st_size
    assert json.loads(verb("inspect", packed, "--json"))["tensors"][0]["name"] == NAME
    assert "poids ???" in verb("inspect", packed)
    verb("unpack", packed, dense)
    (before,), (after,) = (onnx.load(path).graph.initializer for path in (model, dense))
    assert numpy_helper.to_array(before).tobytes() == numpy_helper.to_array(after).tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.onnx", "packed.onnx"]


def test_a_file_is_benchmarked_and_its_memory_is_unknown(python, short_program, model, tmp_path):
    done = python("-c", short_program, "bench", model, "--baseline", model, "--json", tmp_path / "here.json")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    printed = done.stdout
    found = json.loads((tmp_path / "here.json").read_bytes())["benchmark"]
    assert [row["peak_rss_bytes"] for row in (found["control"], *found["rows"])] == [None, None]
    assert found["rows"][0]["ratio_to_dense"] > 0
    assert found["host"]["affinity"] == list(range(os.cpu_count()))
    costs = printed[printed.index("peak MiB") :].splitlines()
    assert next(line for line in costs if "dense.onnx" in line).split()[-1] == "-"


def test_sentences_are_translated(python, words_root):
    run = words_root / "artifacts" / "words"
    done = python("-m", "tdcompress", "translate", run, "one two three four", "six six")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == Translator(run)(["one two three four", "six six"])


def test_without_a_compiler_the_engine_says_what_to_install(python, model, tmp_path):
    bare = {"PATH": "", "CC": "", "TDCOMPRESS_CACHE": str(tmp_path), "TDCOMPRESS_ENGINE_LIBRARY": ""}
    program = "import sys; sys.modules['ziglang'] = None; from tdcompress.cli import main; sys.exit(main(sys.argv[1:]))"
    done = python("-c", program, "inspect", model, "--backend", "engine", **bare)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "tdcompress: engine: no C compiler; install gcc or clang, or `pip install ziglang`, or use the onnxruntime backend\n"
    )


def test_locks_hold_there_too(python, tmp_path):
    program = (
        "import sys, pathlib\n"
        "from tdcompress.errors import BusyError\n"
        "from tdcompress.locks import hold, holder\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "with hold(path, 'it'):\n"
        "    print(str(holder(path)).startswith('process '))\n"
        "    try:\n"
        "        with hold(path, 'it'):\n"
        "            print('twice')\n"
        "    except BusyError as error:\n"
        "        print(error)\n"
        "print(holder(path))\n"
    )
    first, second, third = python("-c", program, tmp_path / "lock").stdout.splitlines()
    assert (first, third) == ("True", "None")
    assert second.startswith("it is in use by process ")


def sources():
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted((ROOT / "tdcompress").rglob("*.py"))]


def test_only_what_can_do_without_imports_a_module_of_posix():
    found = {
        path.relative_to(ROOT / "tdcompress").as_posix(): name
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        if name in elsewhere.MODULES
    }
    assert found == {"bench/worker.py": "resource"}


def test_every_text_file_has_its_encoding_said():
    """Without one a file is read in the code page of the machine."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _guesses_an_encoding(node)
    ]
    assert found == []


def _guesses_an_encoding(call):
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in named:
        return False
    if function in ("run", "Popen", "check_output"):
        return not {"text", "universal_newlines"}.isdisjoint(named)
    modes = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    if function in ("open", "fdopen"):
        return any(mode in ("r", "w", "a", "x", "r+") for mode in modes) or not (call.args or call.keywords)
    return function == "read_text" or (function == "write_text" and isinstance(call.func, ast.Attribute))
