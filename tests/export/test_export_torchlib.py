"""torch's table of ONNX functions is made once, and changes nothing."""

import pytest
import torch
from torch import nn

from tdcompress.export import torchlib
from tdcompress.export.to_onnx import to_model_proto

registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
EXAMPLE = torch.ones(2, 4)


def network() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    return model


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A process that has exported nothing yet; tells of every table that torch makes from now on."""
    made: list[int] = []
    own = registration.ONNXRegistry.from_torchlib.__func__

    def counted(cls: type, *arguments: int, **options: int) -> object:
        made.append(1)
        return own(cls, *arguments, **options)

    monkeypatch.setattr(torchlib, "_made", {})
    monkeypatch.setattr(registration.ONNXRegistry, "from_torchlib", classmethod(counted))
    return made


def test_a_second_export_is_the_same_and_makes_no_table(tables: list[int]) -> None:
    before = vars(registration.ONNXRegistry)["from_torchlib"]
    first, second = (to_model_proto(network(), EXAMPLE).SerializeToString(deterministic=True) for _ in range(2))
    assert len(tables) == 1
    assert first == second
    assert vars(registration.ONNXRegistry)["from_torchlib"] is before


def test_each_gets_a_table_of_its_own(tables: list[int]) -> None:
    def add(table: object) -> None:
        table.register_op(torch.ops.aten.relu.default, lambda x: x)  # type: ignore[attr-defined]

    with torchlib.table_made_once():
        first = registration.ONNXRegistry.from_torchlib(20)
        names = {target: len(functions) for target, functions in first.functions.items()}
        add(first)
        second = registration.ONNXRegistry.from_torchlib(20)
    assert len(tables) == 1
    assert {target: len(functions) for target, functions in second.functions.items()} == names
    assert len(first.get_decomps(torch.ops.aten.relu.default)) == 1 + names["aten::relu"]


def test_operators_that_were_registered_since_are_found(tables: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    names = torch._C._dispatch_get_all_op_names()
    with torchlib.table_made_once():
        registration.ONNXRegistry.from_torchlib(20)
    monkeypatch.setattr(torch._C, "_dispatch_get_all_op_names", lambda: [*names, "torchvision::new"])
    with torchlib.table_made_once():
        registration.ONNXRegistry.from_torchlib(20)
        registration.ONNXRegistry.from_torchlib(20)
    assert len(tables) == 2


def test_a_torch_that_is_made_otherwise_exports_too(tables: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_dispatch_get_all_op_names")
    to_model_proto(network(), EXAMPLE)
    assert (len(tables), torchlib._made) == (1, {})
