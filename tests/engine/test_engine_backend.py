"""The backend tests inside the onnx package: no wrong result, no crash, every refusal typed; and what passes only grows.

`python tests/engine/test_engine_backend.py` writes the list of what passes anew; it refuses to make it shorter.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from tdcompress.engine import Session
from tdcompress.errors import UserError

KINDS = ("node", "pytorch-converted", "pytorch-operator")
GOLDEN = Path(__file__).with_name("backend_passing.json")
PASSED, REFUSED = "passed", "refused"


@dataclass(frozen=True)
class Case:
    name: str
    model: onnx.ModelProto
    data: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    rtol: float
    atol: float


def cases(kind: str) -> Iterator[Case]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx makes some of its expected outputs by overflow
        found = load_model_tests(kind=kind)
    for case in found:
        if case.model is not None:
            model, data = case.model, case.data_sets
        else:
            folder = Path(case.model_dir)
            model = onnx.load(folder / "model.onnx")
            sets = sorted(folder.glob("test_data_set_*"))
            data = [tuple([tensor(path) for path in files(one, what)] for what in ("input", "output")) for one in sets]
        yield Case(case.name, model, data, case.rtol, case.atol)


def files(folder: Path, what: str) -> list[Path]:
    return sorted(folder.glob(f"{what}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))


def tensor(path: Path) -> np.ndarray:
    return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def variants(model: onnx.ModelProto, inputs: Sequence[Any]) -> Iterator[tuple[onnx.ModelProto, list[Any]]]:
    """The model as it is, then with all inputs but one made constant: weights are constants to the engine."""
    yield model, list(inputs)
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in constants]
    if len(names) < 2 or len(names) != len(inputs) or not all(isinstance(value, np.ndarray) for value in inputs):
        return
    for kept in names:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        changed.ir_version = max(4, model.ir_version)  # before that, constants are inputs too
        given = dict(zip(names, inputs, strict=True))
        changed.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in given.items() if name != kept)
        left = [value for value in model.graph.input if value.name not in given or value.name == kept]
        del changed.graph.input[:]
        changed.graph.input.extend(left)
        yield changed, [given[kept]]


def outcome(case: Case) -> str:
    """PASSED, if any variant gives the right outputs; REFUSED; or what is wrong."""
    passed = False
    for given, wanted in case.data:
        for model, inputs in variants(case.model, given):
            try:
                session = Session(model.SerializeToString())
                feed = {value.name: np.asarray(array) for value, array in zip(session.get_inputs(), inputs, strict=True)}
                got = session.run(None, feed)
            except UserError:
                continue
            except Exception as error:  # what this test is about
                return f"{type(error).__name__}: {error}"
            for mine, theirs in zip(got, wanted, strict=True):
                if mine.shape != np.shape(theirs):
                    return f"shape {mine.shape}, not {np.shape(theirs)}"
                if not np.allclose(mine, theirs, rtol=case.rtol, atol=case.atol, equal_nan=True):
                    return f"off by {np.nanmax(np.abs(mine - theirs)):.3g}"
            passed = True
    return PASSED if passed else REFUSED


def outcomes(kind: str) -> dict[str, str]:
    return {case.name: outcome(case) for case in cases(kind)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_backend_tests_of_onnx(kind: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    found = outcomes(kind)
    wrong = {name: text for name, text in found.items() if text not in (PASSED, REFUSED)}
    assert not wrong
    passing = {name for name, text in found.items() if text == PASSED}
    lost = sorted(name for name in golden["passing"][kind] if name in found and name not in passing)
    assert not lost
    if golden["onnx"] == onnx.__version__:
        assert sorted(passing) == golden["passing"][kind], f"more pass now: run python {Path(__file__).name}"


def test_a_wrong_result_and_an_untyped_error_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3]) for name in "xy"]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", values[:1], values[1:]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    x = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
    case = Case("relu", model, [([x], [np.maximum(x, 0)])], 1e-3, 1e-7)
    assert outcome(case) == PASSED
    assert outcome(Case("relu", model, [([x], [x])], 1e-3, 1e-7)) == "off by 2"
    assert outcome(Case("relu", model, [([x], [x[:, :2]])], 1e-3, 1e-7)) == "shape (2, 3), not (2, 2)"
    model.graph.node[0].op_type = "Hardmax"
    assert outcome(case) == REFUSED
    monkeypatch.setattr(Session, "run", lambda *_: 1 / 0)
    model.graph.node[0].op_type = "Relu"
    assert outcome(case) == "ZeroDivisionError: division by zero"


def main() -> None:
    before = json.loads(GOLDEN.read_text())["passing"] if GOLDEN.is_file() else {}
    passing = {kind: sorted(name for name, text in outcomes(kind).items() if text == PASSED) for kind in KINDS}
    lost = [name for kind, names in before.items() for name in names if name not in passing[kind]]
    if lost:
        raise SystemExit(f"passed before and not now: {', '.join(lost)}")
    GOLDEN.write_text(json.dumps({"onnx": onnx.__version__, "passing": passing}, indent=1) + "\n")
    print(GOLDEN, {kind: len(names) for kind, names in passing.items()})


if __name__ == "__main__":
    main()
