"""The share of a training step that selecting and dropping takes: targeted dropout beside no method, in turn.

Two measures. Direct: the time of `begin_step` (select, draw) and of the masks' forward and backward, by themselves, over the time
of a step. Paired: the whole step with the method minus the whole step without, in the same round; the two steps are interleaved,
so that what else the machine does falls on both. The paired one contains everything but needs a quiet machine or many rounds.

    python benchmarks/selection_share.py --model resnet32 --batch 128 --rounds 20

The results that the documentation quotes are in docs/log.md.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from counts import at_least
from torch import Tensor, nn

from tdcompress.methods.base import Granularity, TrainStep
from tdcompress.methods.none import NoneSettings
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.models.registry import build_model
from tdcompress.sparsity.units import Targets, UnitGroup, prunable_weights
from tdcompress.train.evaluate import Precision, autocast
from tdcompress.train.optim import OptimizerSettings

CPU = torch.device("cpu")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


class Trainee:
    """A network with a method and all that its step needs."""

    def __init__(self, model: str, batch: int, granularity: Granularity, targeted: bool) -> None:
        network = build_model(model, classes=10)
        images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.arange(batch) % 10
        weights = prunable_weights(network)
        sizes = [network.get_parameter(slot.parameter).shape[slot.axis] for slot in weights]
        groups = [UnitGroup(name=slot.parameter, size=size, filters=(slot,)) for slot, size in zip(weights, sizes, strict=True)]
        targets = Targets(weights=weights, groups=tuple(groups))
        settings = TargetedSettings(granularity=granularity, gamma=0.75, alpha=0.66) if targeted else NoneSettings()
        self.net = SparseNet(network, settings.build(targets, network))
        self.optimizer = OptimizerSettings(lr=0.01, momentum=0.9, nesterov=True).build(self.net)
        self.generator = torch.Generator().manual_seed(0)

    def step(self, precision: Precision) -> None:
        """One optimizer step."""
        self.select()
        with autocast(CPU, precision):
            logits = self.net(self.images).float()
        torch.autograd.backward(nn.functional.cross_entropy(logits, self.labels))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def select(self) -> None:
        """Rank and draw."""
        self.net.begin_step(TrainStep(), self.generator)

    def drop(self) -> None:
        """The masks alone, forward and backward."""
        params = self.net.parameters_by_name()
        effective = self.net.method.effective(params)
        outputs: list[Tensor] = list(effective.values())
        gradients = [params[name].detach() for name in effective]
        torch.autograd.grad(outputs, [params[name] for name in effective], gradients)


def seconds(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="resnet32")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--granularity", choices=("weight", "unit"), default="weight")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=at_least(2), default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dense = Trainee(options.model, options.batch, options.granularity, targeted=False)
    sparse = Trainee(options.model, options.batch, options.granularity, targeted=True)

    fastest = min(PRECISIONS, key=lambda p: min(seconds(lambda: dense.step(p)) for _ in range(3)))
    sparse.step(fastest)
    calls = {
        "step": lambda: dense.step(fastest),
        "targeted step": lambda: sparse.step(fastest),
        "select": sparse.select,
        "drop": sparse.drop,
    }
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(options.rounds):
        # the order turns, so that no call always follows the same one
        names = list(calls)[number % len(calls) :] + list(calls)[: number % len(calls)]
        for name in names:
            samples[name].append(seconds(calls[name]))

    processor = platform.processor() or platform.machine()
    print(f"{options.model}, batch {options.batch}, {options.granularity}s, {fastest} (the faster of {', '.join(PRECISIONS)})")
    print(f"torch {torch.__version__}, {options.threads} threads, {processor}, {options.rounds} rounds")
    for name, values in samples.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"  {name:14s} {middle * 1e3:8.2f} ms  (quartiles {low * 1e3:.2f} .. {high * 1e3:.2f})")
    step = statistics.median(samples["targeted step"])
    direct = statistics.median(samples["select"]) + statistics.median(samples["drop"])
    paired = [b / a - 1.0 for a, b in zip(samples["step"], samples["targeted step"], strict=True)]
    low, middle, high = statistics.quantiles(paired, n=4)
    print(f"share of a step, direct: {direct / step:.1%}")
    print(f"longer than a step without the method, paired: {middle:+.1%} (quartiles {low:+.1%} .. {high:+.1%})")


if __name__ == "__main__":
    main()
