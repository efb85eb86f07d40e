"""The loop as a whole: what a training leaves behind, and that a stopped one goes on as if it had not stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from tdcompress.errors import ArtifactError, InterruptedRun, TrainingError, UserError
from tdcompress.methods.base import Method
from tdcompress.methods.l0 import L0Settings
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.units import Slot, Targets
from tdcompress.train.loop import Progress, TrainData, TrainResult, TrainSettings, train
from tdcompress.train.optim import LrSchedule, OptimizerSettings

CPU = torch.device("cpu")
SGD = OptimizerSettings(name="sgd", lr=0.05, momentum=0.9, nesterov=True)
# A program that trains the network of `conv_net`; run in a subprocess so that it can be killed.
PROGRAM = """
import signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_train_loop as t

received = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: received.append(number))

def progress(p):
    print("step", p.step, flush=True)
    time.sleep(0.02)

try:
    t.run(Path(sys.argv[1]), progress=progress, should_stop=lambda: received[0] if received else None,
          checkpoint_seconds=float(sys.argv[2]))
except t.InterruptedRun as stop:
    print(stop, flush=True)
    sys.exit(stop.exit_code)
"""


class Standardise(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def flip(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    flipped = torch.rand(len(pixels), generator=generator) < 0.5
    return torch.where(flipped[:, None, None, None], pixels.flip(2), pixels)


def images(count: int, seed: int = 0) -> TrainData:
    """8 x 8 images of two classes: bright above or bright below, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    pixels = torch.randint(0, 160, (count, 8, 8, 1), generator=generator)
    pixels[:, :4] += 90 * labels[:, None, None, None]
    pixels[:, 4:] += 90 * (1 - labels)[:, None, None, None]
    return TrainData(pixels=pixels.to(torch.uint8), labels=labels, preprocess=Standardise(), augment=flip)


def conv_net(seed: int = 0, dropout: float = 0.25) -> SparseNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d((2, 1)),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(12, 2),
        )
    targets = Targets(weights=(Slot(parameter="0.weight"),))
    return SparseNet(model, TargetedSettings(gamma=0.5, alpha=0.5).build(targets, model))


def linear_net(seed: int = 0) -> SparseNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    return SparseNet(model, Method(Targets(weights=())))


SETTINGS = TrainSettings(epochs=3, batch_size=16, optimizer=SGD, l2=1e-3, clip_norm=1.0, label_smoothing=0.1)


def run(folder: Path, net: SparseNet | None = None, settings: TrainSettings = SETTINGS, **more: object) -> TrainResult:
    net = conv_net() if net is None else net
    arguments = {"seed": 5, "device": CPU, "folder": folder, **more}
    return train(net, images(100), images(40, seed=1), settings, **arguments)  # type: ignore[arg-type]


def timeless(folder: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_it_learns_and_tells_every_epoch(tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = run(tmp_path, settings=TrainSettings(epochs=8, batch_size=16, optimizer=SGD), progress=seen.append)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert [line["step"] for line in lines] == [6 * epoch for epoch in range(1, 9)]  # floor(100 / 16) steps each
    assert list(lines[0]) == [
        *("epoch", "step", "loss", "train_accuracy", "test_accuracy", "lr", "gamma", "alpha"),
        *("images_per_second", "seconds"),
    ]
    assert lines[0]["gamma"] == 0.5
    assert lines[-1]["test_accuracy"] == result.test_accuracy == 1.0
    assert (result.epochs, result.steps, result.resumed_from_step) == (8, 48, 0)
    assert [p.step for p in seen] == list(range(1, 49))
    assert (seen[6].epoch, seen[6].epochs, seen[6].steps) == (2, 8, 48)


def test_a_second_start_of_a_finished_training_does_nothing(tmp_path: Path) -> None:
    first, again = conv_net(), conv_net(seed=9)
    run(tmp_path, first)
    (tmp_path / ".metrics.jsonl.ab12.tmp").write_text("what a killed run leaves")
    seen: list[Progress] = []
    result = run(tmp_path, again, progress=seen.append)
    assert result.resumed_from_step == result.steps == 18
    assert not seen
    assert same_bits(first, again)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["checkpoints", "metrics.jsonl"]


def test_same_seed_same_bits_and_the_callers_randomness_is_untouched(tmp_path: Path) -> None:
    nets = [conv_net(), conv_net()]
    states = []
    for index, net in enumerate(nets):
        torch.manual_seed(index)
        before = torch.get_rng_state()
        run(tmp_path / str(index), net)
        states.append(torch.equal(before, torch.get_rng_state()))
    assert states == [True, True]
    assert same_bits(*nets)
    assert timeless(tmp_path / "0") == timeless(tmp_path / "1")


def test_stopped_between_any_two_steps_or_in_an_evaluation_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = conv_net()
    run(tmp_path / "whole", whole)
    # should_stop is asked before each step, at each epoch's end and before each batch of its evaluation: every 4th stops
    folder, starts, net, finished = tmp_path / "parts", 0, conv_net(), False
    while not finished:
        answers = iter([None, None, None, signal.SIGTERM])
        net = conv_net(seed=starts)  # what a later start begins with must not matter: there is a checkpoint
        starts += 1
        try:
            run(folder, net, should_stop=lambda answers=answers: next(answers))
            finished = True
        except InterruptedRun:
            finished = False
    assert starts > 5
    assert same_bits(whole, net)
    assert timeless(tmp_path / "whole") == timeless(folder)


def test_the_networks_own_dropout_differs_from_step_to_step(tmp_path: Path) -> None:
    masks: list[tuple[bool, ...]] = []

    class Recorded(nn.Dropout):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            dropped = super().forward(torch.ones_like(x)) == 0
            if self.training:
                masks.append(tuple(dropped.flatten().tolist()))
            return x.masked_fill(dropped, 0.0)

    net = conv_net()
    net.model[5] = Recorded(0.25)  # type: ignore[operator]
    run(tmp_path, net)
    assert len(masks) == len(set(masks)) == 18


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_every_optimizer_resumes_exactly(tmp_path: Path, name: str) -> None:
    settings = TrainSettings(
        epochs=2,
        batch_size=16,
        optimizer=OptimizerSettings(name=name, weight_decay=1e-2),  # type: ignore[arg-type]
        lr_schedule=LrSchedule(name="cosine", warmup_epochs=0.5),
        accumulate=2,
    )
    nets = [conv_net(), conv_net()]
    run(tmp_path / "whole", nets[0], settings)
    remaining = iter([None] * 4 + [signal.SIGINT])
    with pytest.raises(InterruptedRun) as stop:
        run(tmp_path / "parts", conv_net(), settings, should_stop=lambda: next(remaining))
    assert stop.value.exit_code == 130
    run(tmp_path / "parts", nets[1], settings)
    assert same_bits(*nets)


def gated_net(seed: int = 0) -> SparseNet:
    net = conv_net(seed)
    settings = L0Settings(initial_drop=0.3, lr_scale=50.0)
    return SparseNet(net.model, settings.build(net.method.targets, net.model, seed))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_methods_own_parameters_resume_exactly_at_their_own_rate(tmp_path: Path, name: str) -> None:
    momentum = 0.9 if name == "sgd" else None
    settings = TrainSettings(
        epochs=2,
        batch_size=16,
        optimizer=OptimizerSettings(name=name, momentum=momentum),  # type: ignore[arg-type]
        lr_schedule=LrSchedule(name="cosine", warmup_epochs=0.5),
    )
    nets = [gated_net(), gated_net(seed=3)]  # the second begins with other gates: the checkpoint has to replace them
    run(tmp_path / "whole", nets[0], settings)
    remaining = iter([None] * 4 + [signal.SIGINT])
    with pytest.raises(InterruptedRun):
        run(tmp_path / "parts", gated_net(), settings, should_stop=lambda: next(remaining))
    run(tmp_path / "parts", nets[1], settings)
    assert same_bits(*nets)


def test_memory_order_of_the_weights_does_not_change_the_resumed_bits(tmp_path: Path) -> None:
    def channels_last() -> SparseNet:
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2))
        for index, parameter in enumerate(model.parameters()):
            nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(index))
        return SparseNet(model.to(memory_format=torch.channels_last), Method(Targets(weights=())))

    nets = [channels_last(), channels_last()]
    run(tmp_path / "whole", nets[0])
    remaining = iter([None] * 7 + [signal.SIGINT])
    with pytest.raises(InterruptedRun):
        run(tmp_path / "parts", channels_last(), should_stop=lambda: next(remaining))
    run(tmp_path / "parts", nets[1])
    assert same_bits(*nets)


def _start(folder: Path, checkpoint_seconds: float) -> subprocess.Popen[str]:
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    arguments = [sys.executable, "-c", program, str(folder), str(checkpoint_seconds)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.split() == ["step", str(step)]:
            return
    raise AssertionError(f"the program ended before step {step}")


def test_a_killed_process_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    whole, resumed = conv_net(), conv_net(seed=3)
    run(tmp_path / "whole", whole)
    folder = tmp_path / "killed"
    with _start(folder, checkpoint_seconds=0.0) as process:  # a checkpoint after every step
        _wait_for_step(process, 9)
        time.sleep(0.01)
        process.kill()
    result = run(folder, resumed)
    assert result.resumed_from_step >= 8
    assert same_bits(whole, resumed)
    assert timeless(tmp_path / "whole") == timeless(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_within_one_step(tmp_path: Path, number: signal.Signals) -> None:
    whole, resumed = conv_net(), conv_net(seed=3)
    run(tmp_path / "whole", whole)
    with _start(tmp_path / "stopped", checkpoint_seconds=1e9) as process:
        _wait_for_step(process, 8)
        process.send_signal(number)
        assert process.stdout is not None
        rest = process.stdout.read()
    assert process.returncode == 128 + number
    assert "stopped after step" in rest
    result = run(tmp_path / "stopped", resumed)
    assert result.resumed_from_step in (8, 9)
    assert same_bits(whole, resumed)
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "stopped")


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ArtifactError, match="another training"):
        run(tmp_path, settings=TrainSettings(epochs=4, batch_size=16, optimizer=SGD))
    net = conv_net()
    net.model[0] = nn.Conv2d(1, 6, 5, padding=2, bias=False)  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=r"net/model\.0\.weight of shape"):
        run(tmp_path, net)
    with pytest.raises(ArtifactError, match="another training"):
        run(tmp_path, keep={"6.weight": torch.ones(2, 12, dtype=torch.bool)})


def test_fewer_samples_than_a_batch_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.batch_size: 128, but there are only 100"):
        run(tmp_path, settings=TrainSettings(batch_size=128))


def test_micro_batches_give_the_same_training(tmp_path: Path) -> None:
    nets = []
    for accumulate in (1, 2, 8):
        net = linear_net()
        settings = TrainSettings(epochs=3, batch_size=16, optimizer=SGD, accumulate=accumulate, l2=1e-3, clip_norm=0.5)
        run(tmp_path / str(accumulate), net, settings)
        nets.append(net)
    for other in nets[1:]:
        torch.testing.assert_close(other.state_dict(), nets[0].state_dict(), rtol=1e-4, atol=1e-6)
    losses = [[line["loss"] for line in timeless(tmp_path / str(a))] for a in (1, 2, 8)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_masks_are_drawn_once_a_step_whatever_the_micro_batches(tmp_path: Path) -> None:
    net = conv_net()
    drawn: list[float] = []
    begin = net.method.begin_step

    def counted(params: object, step: object, generator: object) -> None:
        drawn.append(step.share)  # type: ignore[attr-defined]
        begin(params, step, generator)  # type: ignore[arg-type]

    net.method.begin_step = counted  # type: ignore[method-assign, assignment]
    run(tmp_path, net, TrainSettings(epochs=1, batch_size=16, optimizer=SGD, accumulate=4))
    assert drawn == pytest.approx([index / 6 for index in range(6)])


def test_one_step_by_hand(tmp_path: Path) -> None:
    """Nesterov, L2 before clipping, against the formulas written out."""
    data = images(16)
    net = linear_net()
    weight, bias = (p.detach().clone().double() for p in net.model.parameters())
    settings = TrainSettings(epochs=1, batch_size=16, optimizer=SGD, l2=0.3, clip_norm=0.7)
    plain = TrainData(pixels=data.pixels, labels=data.labels, preprocess=Standardise())
    train(net, plain, plain, settings, seed=0, device=CPU, folder=tmp_path)

    x = Standardise()(data.pixels).flatten(1).double()
    share = torch.softmax(x @ weight.T + bias, 1) - nn.functional.one_hot(data.labels, 2)
    grads = [share.T @ x / 16 + 0.3 * weight, share.mean(0) + 0.3 * bias]
    norm = torch.cat([g.flatten() for g in grads]).norm()
    assert norm > 0.7
    for parameter, start, grad in zip(net.model.parameters(), (weight, bias), grads, strict=True):
        clipped = grad * 0.7 / norm
        expected = start - 0.05 * (clipped + 0.9 * clipped)  # nesterov: grad + momentum * buffer, buffer = grad
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_trains_float32_weights(tmp_path: Path) -> None:
    net = conv_net(dropout=0.0)
    settings = TrainSettings(epochs=6, batch_size=16, optimizer=SGD, precision="bfloat16")
    assert run(tmp_path, net, settings).test_accuracy == 1.0
    assert {p.dtype for p in net.parameters()} == {torch.float32}


class Explodes(nn.Module):
    """Its output is finite but its gradient is not: sqrt at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(2))
        self.head = nn.Linear(64, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1)) + self.scale.sqrt()


def test_a_gradient_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    net = SparseNet(Explodes(), Method(Targets(weights=())))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(TrainingError, match=r"step 1 \(epoch 1\): the gradient of model\.scale is not finite"):
        run(tmp_path, net)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_loss_that_is_not_finite_names_its_step(tmp_path: Path) -> None:
    net = linear_net()
    poisoned = 8

    def poison(progress: Progress) -> None:
        if progress.step == poisoned:
            net.model[1].bias.data[0] = float("nan")  # type: ignore[index, union-attr]

    with pytest.raises(TrainingError, match=r"step 9 \(epoch 2\): the loss is nan; the update was not made"):
        run(tmp_path, net, progress=poison)
    assert torch.isfinite(net.model[1].weight).all()  # type: ignore[index, union-attr]


def test_no_memory_names_the_batch_size(tmp_path: Path) -> None:
    class Huge(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.empty(1 << 60, dtype=torch.uint8)
            raise AssertionError("that fitted")

    net = SparseNet(Huge(64, 2), Method(Targets(weights=())))
    with pytest.raises(TrainingError, match=r"train\.batch_size = 16"):
        run(tmp_path, net)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_frozen_zeros_are_exactly_zero_after_every_step(tmp_path: Path, name: str) -> None:
    net = conv_net()
    model = net.model
    dead = torch.tensor([True, False, False, True, False, False])
    keep = {
        "0.weight": ~dead[:, None, None, None],  # broadcasts
        "1.weight": ~dead,
        "1.bias": ~dead,
        "6.weight": torch.rand(2, 12, generator=torch.Generator().manual_seed(0)) < 0.5,
    }
    optimizer = OptimizerSettings(name=name, lr=0.05, weight_decay=0.01, momentum=0.9 if name == "sgd" else None)  # type: ignore[arg-type]
    settings = TrainSettings(epochs=2, batch_size=16, optimizer=optimizer, l2=0.01)
    params = dict(model.named_parameters())
    steps = 0

    def check(progress: Progress) -> None:
        nonlocal steps
        steps += 1
        for key, mask in keep.items():
            frozen = params[key][~mask.expand_as(params[key])]
            assert torch.equal(frozen.view(torch.int32), torch.zeros_like(frozen).view(torch.int32))  # +0, not -0

    run(tmp_path, net, settings, progress=check, keep=keep)
    assert steps == 12
    alive = {key: params[key][mask.expand_as(params[key])] for key, mask in keep.items()}
    assert all(bool((value != 0).all()) for value in alive.values())


def test_frozen_masks_must_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"keep: no parameter is called 7\.weight"):
        run(tmp_path, keep={"7.weight": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"keep: the mask of 6\.bias is torch\.float32"):
        run(tmp_path, keep={"6.bias": torch.ones(2)})


def test_evaluate_every_skips_all_but_the_last(tmp_path: Path) -> None:
    run(tmp_path, settings=TrainSettings(epochs=5, batch_size=16, optimizer=SGD, evaluate_every=2))
    measured = [line["epoch"] for line in timeless(tmp_path) if "test_accuracy" in line]
    assert measured == [2, 4, 5]


def test_no_epochs_only_measures(tmp_path: Path) -> None:
    net = conv_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    result = run(tmp_path, net, TrainSettings(epochs=0, batch_size=16))
    assert (result.steps, result.loss) == (0, None)
    assert 0.0 <= result.test_accuracy <= 1.0
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
