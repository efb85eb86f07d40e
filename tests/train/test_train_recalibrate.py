"""Statistics estimated again are those of the layers' inputs in the evaluated network, whatever the size of the batches."""

import copy
import logging
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.errors import ModelError, UnsupportedError


def resnet(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A small network with branches, whose statistics and affines are not those of a fresh one."""
    model = tdc.build_model("cifar_resnet20", classes=4, image=(3, 8, 8), shortcut="projection")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(generator=generator)
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model.to(dtype)


def images(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if "running" in name}


def inputs_of_norms(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Mean and variance of every layer's input in evaluation mode, under the names of the statistics that should equal them."""
    found: dict[str, Tensor] = {}

    def look(name: str, x: Tensor) -> None:
        found[f"{name}.running_mean"] = x.mean((0, 2, 3))
        found[f"{name}.running_var"] = x.var((0, 2, 3), correction=1)

    model = copy.deepcopy(model).eval()
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs[0]))  # type: ignore[misc]
    with torch.no_grad():
        model(batch)
    return found


def whole_batch(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """What torch itself computes: all images in one batch in training mode, the old statistics forgotten."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(batch)
    return statistics(model)


def test_every_layer_has_the_statistics_of_its_input_in_evaluation() -> None:
    model, batch = resnet(), images(20)
    names = tdc.recalibrate(model, batch.split(6))
    assert len(names) == 21
    assert names[:2] == ("norm", "stages.0.0.norm1")
    torch.testing.assert_close(inputs_of_norms(model, batch), statistics(model), rtol=1e-10, atol=1e-12)


def test_it_is_a_pass_in_training_mode_with_all_images_in_one_batch_but_for_the_bias_of_the_variance() -> None:
    model, batch = resnet(), images(400)  # 1,600 values of a channel in the last stage: their variances differ by 1/1,600
    expected = whole_batch(model, batch)
    tdc.recalibrate(model, batch.split(150))
    torch.testing.assert_close(statistics(model), expected, rtol=5e-3, atol=5e-3)


@settings(derandomize=True, deadline=None, max_examples=8)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_the_size_of_the_batches_does_not_matter(sizes: list[int]) -> None:
    batch = images(sum(sizes) + 1)
    parts, whole = resnet(), resnet()
    tdc.recalibrate(parts, batch.split([*sizes, 1]))
    tdc.recalibrate(whole, [batch])
    torch.testing.assert_close(statistics(parts), statistics(whole), rtol=1e-10, atol=1e-12)


def test_nothing_but_the_statistics_changes() -> None:
    model = resnet(torch.float32)
    model.train()
    model.stages[0].eval()  # type: ignore[index, union-attr]
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    tdc.recalibrate(model, iter(images(6, torch.float32).split(4)))  # also of an iterator, which can be read once
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "running" in name}
    assert [module.training for module in model.modules()] == modes
    assert not any("forward" in vars(module) for module in model.modules())


def test_the_wrapper_of_targeted_dropout_is_measured_as_it_is_evaluated() -> None:
    plain, wrapped = resnet(torch.float32), resnet(torch.float32)
    net = tdc.TargetedDropout(wrapped, gamma=0.5, alpha=1.0)
    tdc.recalibrate(plain, [images(6, torch.float32)])
    assert tdc.recalibrate(net, [images(6, torch.float32)])[0] == "model.norm"
    assert net.training
    torch.testing.assert_close(statistics(wrapped), statistics(plain))


def test_several_inputs_and_layers_that_are_not_used(caplog: pytest.LogCaptureFixture) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.norm = nn.BatchNorm1d(2), nn.BatchNorm1d(2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            out: Tensor = self.norm(a + b)
            return out

    model = Sum()
    a = torch.tensor([[1.0, 2.0], [3.0, 8.0], [5.0, 5.0]])
    assert tdc.recalibrate(model, [(a, a)]) == ("norm",)
    assert model.norm.running_mean is not None
    assert model.norm.running_mean.tolist() == [6.0, 10.0]
    assert model.norm.running_var is not None
    assert model.norm.running_var.tolist() == [16.0, 36.0]
    assert model.unused.running_mean is not None
    assert model.unused.running_mean.tolist() == [0.0, 0.0]
    assert "BatchNorm of Sum: unused: a layer that the forward pass never calls" in caplog.text


def test_no_norm_is_said_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))
    before = copy.deepcopy(model.state_dict())
    with caplog.at_level(logging.WARNING):
        assert tdc.recalibrate(model, [torch.ones(3, 2)]) == ()
    assert "no BatchNorm layer with running statistics in this Sequential" in caplog.text
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Norms(nn.Module):
    """Two layers, called as a test says."""

    def __init__(self, call: Callable[["Norms", Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, x)


def rows(count: int, start: float = 0.0) -> Tensor:
    """(count, 2) of start, start + 1, ... and its half."""
    column = torch.arange(count, dtype=torch.float64) + start
    return torch.stack([column, column / 2], 1)


def test_a_layer_that_is_called_by_keyword_is_treated() -> None:
    model = Norms(lambda net, x: net.b(input=net.a(x))).double()
    assert tdc.recalibrate(model, [rows(3)]) == ("a", "b")
    assert model.a.running_mean is not None
    assert model.a.running_mean.tolist() == [1.0, 0.5]


def test_layers_that_only_some_batches_use_get_the_statistics_of_those() -> None:
    model = Norms(lambda net, x: net.a(x) if len(x) == 3 else net.b(x)).double()
    assert tdc.recalibrate(model, [rows(3), rows(2), rows(3, 3.0)]) == ("a", "b")
    a, b = (layer.running_mean for layer in (model.a, model.b))
    assert a is not None
    assert b is not None
    assert (a.tolist(), b.tolist()) == ([2.5, 1.25], [0.5, 0.25])


def test_the_order_is_that_of_all_batches() -> None:
    """The first batch uses the second layer alone; the other one's inputs are those behind the first layer's new statistics."""
    model = Norms(lambda net, x: net.b(x) if len(x) == 2 else net.b(net.a(x))).double()
    assert tdc.recalibrate(model, [rows(2), rows(3)]) == ("a", "b")
    normalised = nn.functional.batch_norm(rows(3), model.a.running_mean, model.a.running_var)
    expected = torch.cat([rows(2), normalised]).mean(0)
    torch.testing.assert_close(model.b.running_mean, expected)


def test_a_layer_whose_forward_is_called_directly_is_treated_and_keeps_a_forward_of_its_own() -> None:
    model = Norms(lambda net, x: net.b.forward(net.a(x + 1))).double()
    own = lambda x: 2 * nn.BatchNorm1d.forward(model.a, x)  # noqa: E731
    model.a.forward = own  # type: ignore[method-assign]
    assert tdc.recalibrate(model, [rows(3)]) == ("a", "b")
    a, b = (layer.running_mean for layer in (model.a, model.b))
    assert a is not None
    assert b is not None
    assert a.tolist() == [2.0, 1.5]
    torch.testing.assert_close(b, torch.zeros(2, dtype=torch.float64))
    assert model.b.running_var is not None
    torch.testing.assert_close(model.b.running_var, 4 / (1 + 1e-5 / torch.tensor([1.0, 0.25], dtype=torch.float64)))
    assert model.a.forward is own
    assert "forward" not in vars(model.b)


@pytest.mark.parametrize("how", ["around", "inside", "in place"])
def test_a_compiled_network_that_has_run_is_treated(how: str) -> None:
    model = Norms(lambda net, x: net.b(net.a(x))).double().eval()
    if how == "around":
        net: nn.Module = torch.compile(model, backend="eager")  # type: ignore[assignment]
    elif how == "inside":
        net = nn.Sequential(torch.compile(model, backend="eager"))  # type: ignore[arg-type]
    else:
        (net := model).compile(backend="eager")
    net(rows(3))
    assert len(tdc.recalibrate(net, [rows(3)])) == 2
    assert model.a.running_mean is not None
    assert model.a.running_mean.tolist() == [1.0, 0.5]


def test_batches_that_a_function_makes_are_made_for_each_pass() -> None:
    made: list[int] = []

    def batches() -> Iterator[Tensor]:
        for part in images(6).split(4):
            made.append(len(part))
            yield part

    held, anew = resnet(), resnet()
    assert tdc.recalibrate(anew, batches) == tdc.recalibrate(held, images(6).split(4))
    assert made == [4, 2] * 22  # one pass for the order, and one for each layer
    assert all(torch.equal(value, anew.state_dict()[name]) for name, value in held.state_dict().items())


def test_a_function_has_to_make_the_same_batches_each_time() -> None:
    parts = iter(images(6).split(4))
    told = r"^batches: the function made 6 images \(batches: 2\) for one pass and 0 images \(batches: 0\) for another"
    with pytest.raises(ModelError, match=told):
        tdc.recalibrate(resnet(), lambda: parts)
    sizes = iter(range(1, 100))
    with pytest.raises(ModelError, match=r"made 1 images \(batches: 1\) for one pass and 2 images \(batches: 1\) for another"):
        tdc.recalibrate(resnet(), lambda: [images(next(sizes))])


def test_a_function_that_makes_one_tensor_is_refused_as_the_tensor_is() -> None:
    for batches in (images(6), lambda: images(6)):
        with pytest.raises(ModelError, match=r"^batches has to be a list of what the model takes"):
            tdc.recalibrate(resnet(), batches)
    with pytest.raises(ModelError, match=r"^batches has to be a list of what the model takes, .* and is None"):
        tdc.recalibrate(resnet(), lambda: None)  # type: ignore[arg-type,return-value]


@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated")
def test_a_program_of_torchscript_is_refused() -> None:
    model = torch.jit.trace(nn.Sequential(nn.BatchNorm1d(2)).eval(), rows(3).float())  # type: ignore[no-untyped-call]
    with pytest.raises(UnsupportedError, match="the model is a TorchScript program, whose layers cannot be changed"):
        tdc.recalibrate(model, [rows(3).float()])


def sharing() -> nn.Module:
    model = Norms(lambda net, x: net.b(net.a(x))).double()
    model.b.running_var = model.a.running_var
    return model


def turned() -> nn.Module:
    return Norms(lambda net, x: net.b(net.a(x)) if len(x) == 2 else net.a(net.b(x))).double()


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.norm(x))
        return out


@pytest.mark.parametrize(
    ("make", "batches", "message"),
    [
        (resnet, [], "norm: no batches"),
        (resnet, [images(0)], "norm: 0 values of each channel"),
        (resnet, [images(3) * torch.nan], "norm: the mean of 16 channels is not finite"),
        (Twice, [images(3, torch.float32)], "norm: one forward pass uses it 2 times"),
        (resnet, lambda: iter(()), "norm: no batches"),
        (sharing, [rows(3)], "b: it shares its statistics with a"),
        (turned, [rows(2), rows(3)], "a, b: batches use these layers in different orders"),
        (turned, [rows(2), [rows(3), "x"]], r"batches\[1\] has to be a tensor or a tuple of tensors, and has 'x'"),
    ],
)
def test_what_cannot_be_estimated_names_the_layer(make, batches, message) -> None:
    model = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ModelError, match=message):
        tdc.recalibrate(model, batches)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_statistics_that_overflow_late_leave_the_earlier_layers_as_they_were() -> None:
    model = resnet(torch.float32)
    with torch.no_grad():
        model.stages[1][1].conv1.weight.fill_(3e38)  # type: ignore[index, union-attr]
    before = statistics(model)
    with pytest.raises(ModelError, match=r"stages\.1\.1\.norm1: the (mean|variance) of \d+ channels is not finite"):
        tdc.recalibrate(model, [images(4, torch.float32)])
    assert all(torch.equal(before[name], value) for name, value in statistics(model).items())
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_network_made_in_inference_mode_is_refused() -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(ModelError, match=r"Sequential was made in torch\.inference_mode and cannot be changed; build it outside"):
        tdc.recalibrate(model, [images(2, torch.float32)])
