import pytest
import torch
from torch import nn

from tdcompress.errors import ModelError
from tdcompress.sparsity.units import output_axis, prunable_weights


class Declared(nn.Module):
    unprunable = ("stem", "head")

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 3))
        self.head = nn.Linear(2, 10)
        self.heads = nn.Linear(2, 2)


def names(slots) -> list[str]:
    return [slot.parameter for slot in slots]


def test_what_a_network_declares_stays():
    slots = prunable_weights(Declared())
    assert names(slots) == ["blocks.0.weight", "blocks.2.weight", "heads.weight"]  # "head" is no prefix of "heads"
    assert [slot.axis for slot in slots] == [0, 1, 0]


def test_without_a_declaration_the_last_linear_layer_stays():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    assert names(prunable_weights(model)) == ["0.weight", "2.weight"]
    convolutions = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 3))
    assert names(prunable_weights(convolutions)) == ["0.weight"]


def test_excluded_layers_and_all_below_them_stay():
    assert names(prunable_weights(Declared(), ("blocks.0",))) == ["blocks.2.weight", "heads.weight"]
    assert names(prunable_weights(Declared(), ("blocks",))) == ["heads.weight"]


def test_a_name_that_is_no_layer_is_refused():
    with pytest.raises(ModelError, match=r"exclude = 'block' names no convolution or linear layer of Declared; it has stem"):
        prunable_weights(Declared(), ("block",))
    with pytest.raises(ModelError, match=r"blocks\.1"):
        prunable_weights(Declared(), ("blocks.1",))  # a BatchNorm
    with pytest.raises(ModelError, match=r"^exclude = 'x' names no convolution or linear layer of Linear; it has only itself$"):
        prunable_weights(nn.Linear(2, 2), ("x",))
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(9)))
    model.unprunable = ("hed",)  # type: ignore[assignment]
    said = "unprunable = 'hed' names no convolution or linear layer of Sequential; it has 0, 1"
    with pytest.raises(ModelError, match=f"^{said}, 2, 3, 4, 5, 6, 7, [.]{{3}}$"):
        prunable_weights(model, ("0",))


def test_networks_with_nothing_to_prune_are_refused():
    with pytest.raises(ModelError, match="no convolution or linear layer"):
        prunable_weights(nn.ReLU())
    with pytest.raises(ModelError, match="Linear has no layer to prune beside its only layer"):
        prunable_weights(nn.Linear(2, 2))


def test_a_tied_weight_is_one_weight():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    model[1].weight = model[0].weight
    assert names(prunable_weights(model)) == ["0.weight"]


@pytest.mark.parametrize(
    ("module", "axis"),
    [
        (nn.Linear(2, 3), 0),
        (nn.Conv1d(2, 3, 1), 0),
        (nn.Conv2d(2, 3, 1), 0),
        (nn.Conv3d(2, 3, 1), 0),
        (nn.ConvTranspose1d(2, 3, 1), 1),
        (nn.ConvTranspose2d(2, 3, 1), 1),
        (nn.ConvTranspose3d(2, 3, 1), 1),
    ],
)
def test_output_axis_counts_output_channels(module: nn.Module, axis: int):
    assert output_axis(module) == axis
    assert module.weight.shape[axis] == 3


def test_every_kind_of_matrix_is_found_in_order():
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    model = nn.Sequential(*(kind(2, 2, 1) for kind in kinds), nn.Embedding(3, 2), nn.Linear(2, 2))
    slots = prunable_weights(model)
    assert names(slots) == [f"{index}.weight" for index in range(6)]
    assert all(isinstance(dict(model.named_parameters())[slot.parameter], torch.nn.Parameter) for slot in slots)


def test_two_parameters_in_the_same_memory_are_refused_unless_both_stay_dense():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    model[1].weight = nn.Parameter(model[0].weight.t())
    for exclude in ([], ["0"], ["1"]):
        with pytest.raises(ModelError, match="the weights of 0 and 1 are two parameters in the same memory"):
            prunable_weights(model, exclude)
    assert names(prunable_weights(model, ["0", "1"])) == ["2.weight"]


def test_a_dense_weight_that_reaches_over_several_others_is_found_behind_a_dense_one():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(4, 2))
    whole = model[0].weight.detach()
    model[1].weight, model[2].weight = nn.Parameter(whole[1:4]), nn.Parameter(whole[4:])
    with pytest.raises(ModelError, match="the weights of 0 and 2 are two parameters in the same memory"):
        prunable_weights(model, ["0", "1"])
    with pytest.raises(ModelError, match="the weights of 0 and 1 are two parameters in the same memory"):
        prunable_weights(model, ["2"])


def test_parameters_beside_one_another_in_one_memory_are_pruned():
    model, memory = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3), nn.Linear(3, 2)), torch.ones(12)
    model[0].weight, model[1].weight = nn.Parameter(memory[:6].view(2, 3)), nn.Parameter(memory[6:].view(3, 2))
    assert names(prunable_weights(model)) == ["0.weight", "1.weight"]
    columns = torch.ones(2, 6)  # side by side, so that each lies in strips of the memory
    model[0].weight, model[2].weight = nn.Parameter(columns[:, :3]), nn.Parameter(columns[:, 3:])
    assert names(prunable_weights(model)) == ["0.weight", "1.weight"]
