"""Small networks with hand-computed results: which channels go, what is folded, what stays and why."""

import logging

import pytest
import torch
from torch import Tensor, nn

from tdcompress.errors import ModelError, UnsupportedError
from tdcompress.shrinking.exact import shrink
from tdcompress.shrinking.rebuild import narrow


class Lenet5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 8, 5)
        self.fc1, self.fc2 = nn.Linear(8 * 4 * 4, 20), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(self.conv1(x).relu(), 2)
        x = torch.max_pool2d(self.conv2(x).relu(), 2)
        return self.fc2(self.fc1(torch.flatten(x, 1)).relu())


def zero(layer: nn.Module, units: list[int], bias: float = 0.0) -> None:
    with torch.no_grad():
        layer.weight[units] = 0
        if layer.bias is not None:
            layer.bias[units] = bias


def layer(shrunk, name):
    return next(item for item in shrunk.report.layers if item.name == name)


def test_lenet5_counts_by_hand():
    model = Lenet5()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    zero(model.conv1, [0, 3])
    zero(model.conv2, [1])
    zero(model.fc1, [0, 1, 2, 3, 19])
    shrunk = shrink(model, torch.randn(3, 1, 28, 28))
    assert [tuple(p.shape) for p in shrunk.model.parameters()] == [
        (4, 1, 5, 5), (4,), (7, 4, 5, 5), (7,), (15, 112), (15,), (10, 15), (10,),
    ]  # fmt: skip
    assert shrunk.report.parameters_before == 156 + 1208 + 128 * 20 + 20 + 210
    assert shrunk.report.parameters_after == 104 + 707 + 112 * 15 + 15 + 160
    assert shrunk.report.macs_after == 4 * 25 * 24 * 24 + 7 * 4 * 25 * 8 * 8 + 112 * 15 + 150
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output
    assert shrunk.model.conv2.in_channels == 4
    assert shrunk.model.fc1.in_features == 112
    # Channel 1 of conv2 holds the features 16..31 of fc1.
    kept = [i for i in range(128) if not 16 <= i < 32]
    expected = before["fc1.weight"][4:19][:, kept]
    assert torch.equal(shrunk.model.fc1.weight, expected)
    assert model.conv1.weight.shape == (6, 1, 5, 5)


def test_constants_fold_into_an_unpadded_reader_through_an_activation():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 2, 3, bias=False))
    zero(model[0], [1], bias=0.7)
    expected = torch.sigmoid(torch.tensor(0.7, dtype=torch.float64)) * model[2].weight[:, 1].double().sum((1, 2))
    shrunk = shrink(model, torch.randn(2, 3, 8, 8))
    assert shrunk.report.folded_biases == ("2.bias",)
    assert shrunk.model[2].bias.shape == (2,)
    torch.testing.assert_close(shrunk.model[2].bias.double(), expected, rtol=0, atol=1e-6)
    assert shrunk.model[0].weight.shape[0] == 3


def test_a_constant_at_a_zero_padded_border_stays_with_the_reason():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 2, 3, padding=1), nn.Flatten())
    zero(model[0], [1], bias=0.7)
    shrunk = shrink(model, torch.randn(2, 3, 8, 8))
    assert layer(shrunk, "0").units_after == 4
    assert layer(shrunk, "0").reasons == (("its constant cannot be folded into 2: it pads with zeros", 1),)


def test_batch_norm_constants_pass_through_and_fold_where_filters_alone_are_zero(settle):
    model = settle(nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1)))
    zero(model[0], [0, 1, 5])
    shrunk = shrink(model, torch.randn(2, 3, 8, 8))
    assert layer(shrunk, "0").units_after == 3
    assert shrunk.model[1].num_features == 3
    assert shrunk.model[1].running_var.shape == (3,)


def test_a_unit_that_nobody_reads_goes_though_it_is_alive():
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        model[2].weight[:, 2] = 0
    assert shrink(model, torch.randn(2, 5)).model[0].out_features == 3


class Residual(nn.Module):
    """Stem, one block, head: the block's sum couples stem and second."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.second(self.first(x).relu())
        return self.head(x.relu().mean((2, 3)))


def test_a_stream_channel_goes_when_every_writer_is_dead():
    model = Residual()
    zero(model.stem, [0, 1])
    zero(model.second, [1, 2])
    shrunk = shrink(model, torch.randn(2, 3, 6, 6))
    assert (shrunk.model.stem.out_channels, shrunk.model.second.out_channels, shrunk.model.head.in_features) == (4, 4, 4)
    assert layer(shrunk, "stem").dead_kept == 1
    assert layer(shrunk, "second").dead_kept == 1


def test_a_network_of_dead_units_keeps_one_of_each_layer():
    model = Lenet5()
    zero(model.conv1, list(range(6)))
    zero(model.fc1, list(range(20)))
    shrunk = shrink(model, torch.randn(1, 1, 28, 28))
    assert (shrunk.model.conv1.out_channels, shrunk.model.fc1.out_features, shrunk.model.fc2.out_features) == (1, 1, 10)


def test_tied_weights_stay_tied_and_their_channels_agree():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
            self.head.weight = self.table.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.table(tokens).tanh())

    model = Tied()
    with torch.no_grad():
        model.table.weight[:, [1, 4]] = 0
    shrunk = shrink(model, torch.randint(0, 11, (2, 3), generator=torch.Generator().manual_seed(0)))
    assert shrunk.model.head.weight is shrunk.model.table.weight
    assert shrunk.model.table.embedding_dim == 4


def test_a_layer_that_is_called_twice_folds_nothing_and_stays_exact():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.again(self.again(self.first(x).sigmoid()).sigmoid()).sigmoid())

    model = Twice()
    zero(model.first, [2])
    zero(model.again, [2, 3])
    shrunk = shrink(model, torch.randn(2, 4))
    assert shrunk.model.again.in_features == shrunk.model.again.out_features


class SquarePixels(Lenet5):
    """A literal size in a view."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(self.conv1(x).relu(), 2)
        x = torch.max_pool2d(self.conv2(x).relu(), 2)
        return self.fc2(self.fc1(x.view(-1, 8 * 4 * 4)).relu())


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_literal_view_keeps_its_channels_with_the_reason_and_the_rest_shrinks(batch):
    model = SquarePixels()
    zero(model.conv1, [0, 3])
    zero(model.conv2, [1, 2, 3, 4])
    zero(model.fc1, [0, 1])
    shrunk = shrink(model, torch.randn(batch, 1, 28, 28))
    assert (shrunk.model.conv1.out_channels, shrunk.model.conv2.out_channels, shrunk.model.fc1.out_features) == (4, 8, 18)
    reason, count = layer(shrunk, "conv2").reasons[0]
    assert count == 4
    assert "size written as a number" in reason
    assert "view" in reason


def test_an_axis_that_squeeze_would_take_along_stays():
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 8), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).squeeze())  # with one channel left this would be (B,)

    model = Squeezed()
    zero(model.a, [0, 1, 2])
    shrunk = shrink(model, torch.randn(3, 3, 8, 8))
    assert shrunk.model(torch.randn(3, 3, 8, 8)).shape == (3, 2)
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output


def test_an_unknown_operator_keeps_what_reaches_it_and_names_itself():
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.sort(self.b(self.a(x).relu()), dim=1).values)

    model = Sorted()
    zero(model.a, [0])
    zero(model.b, [1])
    shrunk = shrink(model, torch.randn(3, 4))
    assert (shrunk.model.a.out_features, shrunk.model.b.out_features) == (5, 6)
    assert layer(shrunk, "b").reasons[0][0].startswith("sort in ")


class Mixing(nn.Module):
    """A product with a parameter that no layer owns."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.mix, self.b = nn.Linear(4, 8), nn.Parameter(torch.randn(8, 6)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b((self.a(x).relu() @ self.mix).relu())


def test_a_parameter_by_itself_is_narrowed_like_a_layer():
    model = Mixing()
    zero(model.a, [0, 1])
    with torch.no_grad():
        model.mix[:, 0] = 0
        model.b.weight[:, 1] = 0  # nobody reads column 1
    shrunk = shrink(model, torch.randn(5, 4))
    assert shrunk.model.mix.shape == (6, 4)
    assert layer(shrunk, "mix").units_after == 4
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output


def test_a_constant_that_a_parameter_by_itself_would_have_to_take_stays():
    model = Mixing()
    zero(model.a, [3], bias=0.5)
    shrunk = shrink(model, torch.randn(5, 4))
    assert layer(shrunk, "a").reasons == (("mix has no bias that could take its constant", 1),)


def test_living_units_that_nobody_reads_are_told_where_a_shape_keeps_them():
    class Shapes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d, self.e = (nn.Linear(4, n) for n in (6, 6, 8, 4, 3))
            self.head = nn.Linear(6 + 3 + 4 + 4 + 3, 2)

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x).view(-1, 6)  # a size written as a number
            b = self.b(x)[:, 1:4]  # bounds written as numbers
            left, right = self.c(x).chunk(2, 1)
            return self.head(torch.cat([a, b, left * 1.5, right + self.d(x), self.e(x) + x[:, :3]], 1))

    model = Shapes()
    with torch.no_grad():
        # Columns: a 0..5, b 6..8, left 9..12, right 13..16, e 17..19.
        model.head.weight[:, [0, 1, 9, 17]] = 0
    shrunk = shrink(model, torch.randn(5, 4))
    kept = {item.name: item.reasons for item in shrunk.report.layers}
    assert shrunk.report.layers[0].units_after == 6
    ((reason, count),) = kept["a"]
    assert (reason.startswith("view in "), reason.endswith("has a size written as a number"), count) == (True, True, 2)
    assert [(count, "slice with fixed bounds" in reason) for reason, count in kept["b"]] == [(3, True)]
    assert [(count, "must stay equally wide" in reason) for reason, count in kept["c"]] == [(1, True)]
    assert [(count, "combines it with a tensor of fixed size" in reason) for reason, count in kept["e"]] == [(1, True)]
    assert kept["d"] == kept["head"] == ()


def test_a_report_is_printed_as_a_table():
    model = SquarePixels()
    zero(model.conv2, [1, 2])
    text = str(shrink(model, torch.randn(2, 1, 28, 28)).report).splitlines()
    assert text[0] == "layer  units     dead but kept"
    assert text[1] == "conv1  6 -> 6"
    assert text[2].startswith("conv2  8 -> 8    2: view in ")
    assert text[-2].startswith("parameters 4,154 -> 4,154, multiply-accumulates ")
    assert text[-1].startswith("certificate: outputs up to ")


@pytest.mark.parametrize("model", ["x", nn.Linear, None])
def test_what_is_no_network_is_refused(model):
    with pytest.raises(ModelError, match=r"the model has to be a torch\.nn\.Module, and is "):
        shrink(model, torch.zeros(1, 2))
    with pytest.raises(ModelError, match=r"the model has to be a torch\.nn\.Module, and is "):
        narrow(model, {})


def test_torchs_own_dumps_and_log_lines_do_not_reach_the_user(capfd):
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedError):
        shrink(Branching(), torch.randn(2, 3))
    zero((model := SquarePixels()).conv2, [1])
    shrink(model, torch.randn(2, 1, 28, 28))  # whose trial with a channel less fails
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == 0


def test_literal_slices_keep_their_channels():
    class Sliced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x).relu()
            return self.b(x[:, :4] * x[:, 4:])

    model = Sliced()
    zero(model.a, [0, 4])
    assert shrink(model, torch.randn(3, 4)).model.a.out_features == 8


def test_what_torch_export_refuses_is_refused_with_its_reason():
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedError, match=r"torch\.export cannot trace Branching"):
        shrink(Branching(), torch.randn(2, 3))


def test_example_inputs_must_be_tensors():
    for wrong in ([], 5, "x", [1]):
        with pytest.raises(ModelError, match="example_inputs must be"):
            shrink(Lenet5(), wrong)  # type: ignore[arg-type]


def test_the_input_keeps_its_weights_mode_and_gradients():
    model = Lenet5().train()
    zero(model.conv1, [0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shrunk = shrink(model, torch.randn(2, 1, 28, 28))
    assert model.training
    assert shrunk.model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    shrunk.model(torch.randn(2, 1, 28, 28)).sum().backward()
    assert shrunk.model.conv1.weight.grad is not None
    assert type(shrunk.model) is Lenet5
