"""Targeted dropout in a loop of one's own: words for schedules, keyword arguments, exact resume, a forgotten step."""

import copy
import io
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import tdcompress as tdc
from tdcompress.errors import ArgumentError, ModelError, UserError
from tdcompress.methods.base import Granularity, Method
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.schedule import Constant, schedule_by_name
from tdcompress.sparsity.units import Targets


class Net(nn.Module):
    """Takes a scale by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.head = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        for index, parameter in enumerate(self.parameters()):
            if parameter.ndim > 1:
                nn.init.normal_(parameter, generator=torch.Generator().manual_seed(index))

    def forward(self, x: Tensor, *, scale: float = 1.0) -> dict[str, Tensor]:
        return {"logits": self.head(torch.relu(self.norm(self.one(x)))) * scale}


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(12, 6, generator=generator), torch.randint(0, 3, (12,), generator=generator)


def dropped(net: tdc.TargetedDropout) -> list[bool]:
    return [bit for mask in net.method.dropped().values() for bit in mask.flatten().tolist()]


def train(net: tdc.TargetedDropout, optimizer: torch.optim.Optimizer, steps: range) -> list[list[bool]]:
    """Returns what each step drops."""
    masks = []
    for step in steps:
        x, labels = batch(step)
        masks.append(dropped(net))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x)["logits"], labels).backward()
        optimizer.step()
        net.step((step + 1) / 4, optimizer)
    return masks


def test_keyword_arguments_and_results_of_any_kind() -> None:
    net, (x, _) = tdc.TargetedDropout(Net(), gamma=0.0), batch(0)
    for mode in (True, False):
        net.train(mode)
        torch.testing.assert_close(net(x, scale=2.0)["logits"], 2 * net(x=x)["logits"], rtol=0, atol=0)


@pytest.mark.parametrize("schedule", ["constant", "ramp", "cubic"])
@pytest.mark.parametrize("through", ["torch", "safetensors"])
def test_a_resumed_loop_draws_on_exactly(schedule: str, through: str) -> None:
    def make(seed: int) -> tuple[tdc.TargetedDropout, torch.optim.Optimizer]:
        epochs = None if schedule == "constant" else 4
        net = tdc.TargetedDropout(Net(), gamma=0.75, alpha=0.5, schedule=schedule, epochs=epochs, seed=seed)  # type: ignore[arg-type]
        return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    net, optimizer = make(seed=7)
    train(net, optimizer, range(9))
    state = net.state_dict()
    assert all(isinstance(value, Tensor) for value in state.values())
    if through == "safetensors":
        state = load(save(state))
    else:
        torch.save(state, file := io.BytesIO())
        file.seek(0)
        state = torch.load(file, weights_only=True)
    other, other_optimizer = make(seed=1)  # its own draws until then are others
    other.load_state_dict(state)
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert dropped(other) == dropped(net)
    assert train(other, other_optimizer, range(9, 16)) == train(net, optimizer, range(9, 16))
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in other.state_dict().items())


def test_draws_depend_on_the_seed_and_the_step() -> None:
    nets = [tdc.TargetedDropout(Net(), gamma=1.0, alpha=0.5, seed=seed) for seed in (0, 0, 1)]
    assert dropped(nets[0]) == dropped(nets[1]) != dropped(nets[2])
    first = dropped(nets[0])
    nets[0].step()
    assert dropped(nets[0]) != first
    assert dropped(copy.deepcopy(nets[0])) == dropped(nets[0])
    assert next(iter(nets[0].state_dict())) == "_extra_state"
    assert nets[0].state_dict()["_extra_state"].tolist() == [0.0, 1.0, 0.0]


def test_a_schedule_by_its_word() -> None:
    assert schedule_by_name("constant", None) == schedule_by_name("constant", 5) == Constant()
    assert schedule_by_name("ramp", None) == schedule_by_name("ramp", 256) == tdc.Ramp()
    assert schedule_by_name("ramp", 128) == tdc.Ramp(epochs=(24.5, 24.5))
    assert schedule_by_name("cubic", 30) == tdc.Cubic(epochs=30)
    net = tdc.TargetedDropout(Net(), gamma=0.5, schedule="cubic", epochs=30)
    assert net.method.schedule == tdc.Cubic(epochs=30)
    assert tdc.TargetedDropout(Net(), gamma=0.5, schedule=tdc.Ramp()).method.schedule == tdc.Ramp()


class Stairs(tdc.Schedule):
    """A schedule that the package does not know: gamma in two steps, alpha in thirds, frozen from epoch 3 on."""

    def gamma_share(self, epoch: float) -> float:
        return 0.5 if epoch < 2 else 1.0

    def alpha_share(self, epoch: float) -> float:
        return epoch / 3

    def frozen(self, epoch: float) -> bool:
        return epoch >= 3


def test_a_schedule_of_your_own() -> None:
    net = tdc.TargetedDropout(Net(), gamma=0.5, alpha=0.75, schedule=Stairs())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(UserError, match="a schedule needs to know the epoch"):
        net.step()
    for epoch, rates in ((0, (0.25, 0.0)), (1, (0.25, 0.25)), (2, (0.5, 0.5)), (3, (0.5, 1.0))):
        net.step(epoch, optimizer)
        assert net.method.rates(epoch) == rates
    assert (net.plain().one.weight == 0).sum(1).tolist() == [3] * 8
    assert not (net.plain().head.weight == 0).any()


class Nothing(Stairs):
    def gamma_share(self, epoch: float) -> float:
        return None  # type: ignore[return-value]


class Falling(Stairs):
    """gamma falls after the masks are frozen, which changes them no more."""

    def gamma_share(self, epoch: float) -> float:
        return max(0.0, 1.0 - epoch / 10)


@pytest.mark.parametrize("schedule", [Falling(), tdc.Cubic(epochs=5, gamma=(0.0, 0.4), alpha=(0.0, 0.4), freeze=0.4)])
def test_frozen_masks_stay_with_several_optimizers(schedule: tdc.Schedule) -> None:
    net = tdc.TargetedDropout(Net(), gamma=0.5, schedule=schedule)
    plain = net.plain()
    one = torch.optim.SGD(plain.one.parameters(), lr=0.1, momentum=0.9)
    rest = torch.optim.SGD([*plain.norm.parameters(), *plain.head.parameters()], lr=0.1)
    zeros = []
    for step in range(20):
        x, labels = batch(step)
        net.zero_grad()
        nn.functional.cross_entropy(net(x)["logits"], labels).backward()
        one.step()
        rest.step()
        net.step((step + 1) / 4, rest)  # which does not know the momentum of what is dropped
        if schedule.frozen((step + 1) / 4):
            zeros.append((plain.one.weight == 0).tolist())
    assert len(zeros) == 9
    assert all(each == zeros[0] for each in zeros)
    assert [sum(row) for row in zeros[0]] == [3] * 8  # all of gamma


def test_a_schedule_gives_shares() -> None:
    net = tdc.TargetedDropout(Net(), gamma=0.5, schedule=Stairs())
    with pytest.raises(ArgumentError, match=r"^schedule: its alpha_share\(-3\) is -1\.0, and a share is a number from 0 to 1"):
        net.method.rates(-3)
    with pytest.raises(ArgumentError, match=r"^schedule: its gamma_share\(0\) is None, and a share is a number from 0 to 1"):
        tdc.TargetedDropout(Net(), gamma=0.5, schedule=Nothing())


def test_words_and_lengths_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"schedule has to be 'constant', .* and is 'rampp'; did you mean 'ramp'"):
        tdc.TargetedDropout(Net(), gamma=0.5, schedule="rampp")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='epochs: schedule = "cubic" goes by share of the training; give its length'):
        tdc.TargetedDropout(Net(), gamma=0.5, schedule="cubic")
    with pytest.raises(ValueError, match="epochs: -1 is not above 0"):
        tdc.TargetedDropout(Net(), gamma=0.5, schedule="ramp", epochs=-1)
    for schedule in (None, "constant", tdc.Ramp()):
        with pytest.raises(ValueError, match="epochs: only a schedule given by its word"):
            tdc.TargetedDropout(Net(), gamma=0.5, schedule=schedule, epochs=3)
    with pytest.raises(ValueError, match=r"seed: .* is not below 2\^53"):
        tdc.TargetedDropout(Net(), gamma=0.5, seed=2**53)
    net = tdc.TargetedDropout(Net(), gamma=0.5, schedule="cubic", epochs=4)
    with pytest.raises(ArgumentError, match=r"step\(\): epoch has to be 0 or above, and is -1\.0"):
        net.step(-1.0)
    net.step(0)


@pytest.mark.parametrize("granularity", ["weight", "2:4"])
@pytest.mark.parametrize("said", [{"scope": "group"}, {"unit": "filter"}, {"include": ["one"]}, {"draw": "weight"}, {"align": 4}])
def test_what_is_said_of_units_is_refused_for_weights(granularity: Granularity, said: dict[str, Any]) -> None:
    (name,) = said
    message = f'{name}: it is of units, and granularity is "{granularity}"; give granularity = "unit", or leave {name} out'
    for function, share in ((tdc.TargetedDropout, "gamma"), (tdc.prune, "fraction")):
        if name != {tdc.TargetedDropout: "align", tdc.prune: "draw"}[function]:
            with pytest.raises(ArgumentError) as raised:
                function(Net(), granularity=granularity, **{share: 0.5}, **said)
            assert str(raised.value) == message


def test_defaults_and_empty_lists_say_nothing_of_units() -> None:
    tdc.TargetedDropout(Net(), gamma=0.5, scope="layer", unit="whole", draw="unit", include=[])
    tdc.prune(Net(), fraction=0.5, scope="layer", unit="whole", include=[], align=1)


@pytest.mark.parametrize("options", [{"schedule": "ramp"}, {"schedule": "cubic", "epochs": 9}, {"schedule": tdc.Ramp()}])
def test_a_ramp_holds_before_the_first_step(options: dict[str, object]) -> None:
    net = tdc.TargetedDropout(Net(), gamma=1.0, alpha=1.0, **options)  # type: ignore[arg-type]
    assert not any(dropped(net))
    assert not any(dropped(net.double()))  # nor when its masks are drawn again
    net.step(98.0 if options["schedule"] != "cubic" else 5.5)
    assert any(dropped(net))


@pytest.mark.parametrize("fused", [False, True])  # which counts no version of a weight up
def test_a_forgotten_step_is_told_once(fused: bool) -> None:
    net = tdc.TargetedDropout(Net(), gamma=0.5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=fused)
    x, labels = batch(0)

    def update() -> None:
        nn.functional.cross_entropy(net(x)["logits"], labels).backward()
        optimizer.step()

    update()
    with pytest.warns(UserWarning, match=r"call net\.step\(\) after each optimizer\.step\(\)") as told:
        update()
    assert told[0].filename == __file__
    update()  # a second warning would be an error here


def test_micro_batches_evaluation_loading_and_the_right_loop_are_no_forgotten_steps() -> None:
    net = tdc.TargetedDropout(Net(), gamma=0.5)
    with torch.no_grad():
        net.model.one.weight.mul_(2)  # initialised after it was wrapped
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(3):
            for micro in range(2):
                x, labels = batch(10 * step + micro)
                nn.functional.cross_entropy(net(x)["logits"], labels).backward()
            optimizer.step()
            net.eval()(x)
            net.train().step()
            optimizer.zero_grad()
        net(x)
        net.load_state_dict(copy.deepcopy(net.state_dict()))
        net(x)


@pytest.mark.parametrize("name", ["lbfgs", "sam"])
def test_weights_that_an_optimizer_moves_before_its_step_is_over_are_no_forgotten_step(name: str) -> None:
    net, (x, labels) = tdc.TargetedDropout(Net(), gamma=0.5), batch(0)
    parameters = list(net.parameters())
    lbfgs, sgd = torch.optim.LBFGS(parameters, max_iter=4), torch.optim.SGD(parameters, lr=0.1)

    def loss() -> Tensor:
        net.zero_grad()
        found = nn.functional.cross_entropy(net(x)["logits"], labels)
        found.backward()
        return found

    critic = nn.Parameter(torch.ones(1))
    critic.grad = torch.ones(1)
    others = torch.optim.SGD([critic], lr=0.1)

    def sharpness_aware() -> None:
        loss()
        others.step()  # another network's: it moves nothing of this one
        moves = [0.05 * parameter.grad for parameter in parameters if parameter.grad is not None]
        assert len(moves) == len(parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, moves)
        loss()
        with torch.no_grad():
            torch._foreach_sub_(parameters, moves)
        sgd.step()

    def update() -> None:
        if name == "lbfgs":
            lbfgs.step(loss)  # type: ignore[arg-type]
        else:
            sharpness_aware()

    for _ in range(2):  # a warning would be an error here
        update()
        net.step()
    update()
    with pytest.warns(UserWarning, match=r"call net\.step\(\) after each optimizer\.step\(\)"):
        update()


class Checkpointed(nn.Module):
    """Blocks, one of them called twice and one that reads a layer inside it, which run again in the backward pass, or do not."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(2))
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.tied, self.head = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.head.weight = self.tied.weight
        self.run: Callable[..., Tensor] = lambda block, x: block(x)
        for index, parameter in enumerate(self.parameters()):
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(index))

    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.blocks, self.blocks[0], self.attention, self.tied):
            x = self.run(block, x)
        return self.head(x)


@pytest.mark.parametrize("granularity", ["weight", "2:4"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("around", [False, True])
def test_what_runs_again_in_the_backward_pass_has_the_gradients_of_a_single_run(
    granularity: Granularity, reentrant: bool, around: bool
) -> None:
    once = tdc.TargetedDropout(Checkpointed().double(), granularity=granularity, gamma=0.5, alpha=0.8)
    twice = copy.deepcopy(once)
    again = partial(checkpoint, use_reentrant=reentrant)
    if not around:
        twice.model.run = again
    x = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    for _ in range(2):  # micro-batches
        once(x).square().sum().backward()
        (again(twice, x) if around else twice(x)).square().sum().backward()
    for (name, one), (_, other) in zip(once.named_parameters(), twice.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
        assert isinstance(other, nn.Parameter)


def test_the_network_is_an_ordinary_one_beside_its_wrapper_and_keeps_no_hooks() -> None:
    net, (x, labels) = tdc.TargetedDropout(Net(), gamma=0.9, alpha=1.0), batch(0)
    whole = net.model(x)["logits"]
    nn.functional.cross_entropy(net(x)["logits"], labels).backward()
    assert torch.equal(net.model(x)["logits"], whole)
    assert not torch.equal(net(x)["logits"], whole)
    net.step()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.model.modules())
    with torch.no_grad():
        net(x)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.plain().modules())


def test_parameters_of_a_functional_call_are_no_forgotten_step() -> None:
    net, (x, labels) = tdc.TargetedDropout(Net(), gamma=0.5), batch(0)
    net.model.norm.eval()
    nn.functional.cross_entropy(net(x)["logits"], labels).backward()
    given = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(torch.func.functional_call(net, parameters, (x,))["logits"], labels)

    for name, found in torch.func.grad(loss)(given).items():
        torch.testing.assert_close(found, net.get_parameter(name).grad)


def test_masks_follow_a_network_that_is_converted_by_itself() -> None:
    net, (x, _) = tdc.TargetedDropout(Net(), gamma=0.5, alpha=1.0), batch(0)
    net.model.bfloat16()
    net(x.bfloat16())["logits"].sum().backward()
    assert net.model.one.weight.grad.dtype == torch.bfloat16
    assert (net.model.one.weight.grad == 0).sum(1).tolist() == [3] * 8


def test_replicas_of_data_parallel_are_refused() -> None:
    replica = tdc.TargetedDropout(Net(), gamma=0.5)._replicate_for_data_parallel()
    with pytest.raises(ModelError, match=r"^DataParallel runs replicas, which have no parameters to drop: take Distributed"):
        replica(batch(0)[0])


def test_a_gamma_that_cannot_be_reached_is_told_where_it_was_asked_for() -> None:
    said = r'^gamma = 0\.9, shares = "global": 43 of 48 weights were to be candidates, and 40 are \(83\.33%\)'
    with pytest.warns(UserWarning, match=said) as told:
        tdc.TargetedDropout(Net(), gamma=0.9, shares="global")
    assert [each.filename for each in told] == [__file__]


def test_messages_speak_of_arguments_and_those_of_a_recipe_of_its_keys() -> None:
    with pytest.raises(ArgumentError, match=r"^gamma: give gamma, the share that are candidates, or keep_per_filter, "):
        tdc.TargetedDropout(Net())
    for granularity in ("unit", "2:4"):
        with pytest.raises(ArgumentError, match=r"^gamma: give gamma, the share that are candidates$"):
            tdc.TargetedDropout(Net(), granularity=granularity)
    with pytest.raises(ArgumentError, match=r"^epochs: \[0, 1\]: both lengths"):
        tdc.Ramp(epochs=(0, 1))
    with pytest.raises(ArgumentError, match=r"^freeze: 1.0 is not a share"):
        tdc.Cubic(epochs=1, freeze=1.0)
    for schedule, keys, named in (
        ("ramp", {"ramp_epochs": (0, 1)}, "ramp_epochs"),
        ("cubic", {"schedule_epochs": -1}, "schedule_epochs"),
        ("cubic", {"ramp_share": (0.5, 0.2)}, "ramp_share"),
        ("cubic", {"alpha_share": (0.5, 1.2)}, "alpha_share"),
        ("cubic", {"freeze_share": 0.5}, "freeze_share"),
    ):
        with pytest.raises(ValueError, match=f"^{named}: "):
            TargetedSettings(gamma=0.5, schedule=schedule, **keys)  # type: ignore[arg-type]


def test_a_network_is_wrapped_once_and_inside_other_wrappers() -> None:
    net = tdc.TargetedDropout(Net(), gamma=0.5)
    already = r"in TargetedDropout already: use that one, or wrap what it holds, net\.plain\(\)$"
    with pytest.raises(ModelError, match=f"^the network is {already}"):
        tdc.TargetedDropout(net, gamma=0.5)
    with pytest.raises(ModelError, match=f"^module of DataParallel is {already}"):
        tdc.TargetedDropout(nn.DataParallel(net), gamma=0.5)
    with pytest.raises(ModelError, match=f"^1 of Sequential is {already}"):
        tdc.TargetedDropout(nn.Sequential(nn.Linear(3, 3), net), gamma=0.5)
    with pytest.raises(ModelError, match="is in SparseNet already"):
        tdc.TargetedDropout(SparseNet(Net(), Method(Targets(weights=()))), gamma=0.5)
    with pytest.raises(
        ModelError, match=r"^the network is in DataParallel: wrap the Net itself, and put DataParallel around Targeted"
    ):
        tdc.TargetedDropout(nn.DataParallel(Net()), gamma=0.5)
    with pytest.raises(ModelError, match=r"^the network is in OptimizedModule: wrap the Net itself"):
        tdc.TargetedDropout(torch.compile(Net(), backend="eager"), gamma=0.5)  # type: ignore[arg-type]
    tdc.TargetedDropout(net.plain(), gamma=0.5)
