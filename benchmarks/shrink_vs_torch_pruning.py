"""Our shrinking beside torch-pruning's DependencyGraph, on the same dead channels.

For each network, a share of the units of every group is set to zero. Then each tool removes what it can: ours finds the zeros
itself; torch-pruning is told, layer by layer, which filters are zero, and removes the group that its dependency graph
couples to them. Scope "group" with unit "whole" is what both can do; with scope "layer" a stream has living writers beside
dead ones, and with unit "filter" BatchNorm makes constants of the dead channels: torch-pruning removes both, and its outputs
change.

Prints one row for each network: parameters and multiply-accumulates left, max |difference| to the masked network in float64,
seconds.

    python benchmarks/shrink_vs_torch_pruning.py [--networks resnet18 ...] [--fraction 0.5] [--scope group] [--unit whole]
    [--json FILE]

Needs the package ``torch-pruning``.
"""

import argparse
import copy
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch_pruning
import torchvision
from torch import Tensor, nn

from tdcompress.shrinking.count import parameters_and_macs
from tdcompress.shrinking.exact import shrink
from tdcompress.shrinking.groups import unit_groups
from tdcompress.sparsity.units import MATRIX_TYPES, UnitGroup, prunable_weights

NETWORKS = ("resnet18", "resnet50", "vgg11_bn", "densenet121", "mobilenet_v2", "squeezenet1_1", "resnext50_32x4d")


def settled(name: str) -> nn.Module:
    """A network with random weights and statistics away from 0 and 1."""
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.get_model(name, weights=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            nn.init.normal_(module.running_mean, 0.0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def kill(model: nn.Module, groups: Sequence[UnitGroup], fraction: float) -> None:
    """Set the same random share of units of each group to zero, filters and tied parameters."""
    generator = torch.Generator().manual_seed(0)
    parameters = dict(model.named_parameters())
    for group in groups:
        units = torch.randperm(group.size, generator=generator)[: int(fraction * group.size)].tolist()
        for slot in (*group.filters, *group.tied):
            own = [i for u in units for i in ((u,) if slot.positions is None else slot.positions[u])]
            with torch.no_grad():
                parameters[slot.parameter].index_fill_(slot.axis, torch.tensor(own, dtype=torch.int64), 0.0)


def with_torch_pruning(model: nn.Module, x: Tensor) -> tuple[nn.Module, int]:
    """The network after torch-pruning removed every group whose channels are all dead; and the number of layers it refused."""
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=x)
    refused = 0
    for module in [m for m in model.modules() if isinstance(m, MATRIX_TYPES)]:
        weight = module.weight.detach()
        dead = (weight.flatten(1) == 0).all(1).nonzero().flatten().tolist()
        if not dead or len(dead) == len(weight):
            continue
        prune = (
            torch_pruning.prune_linear_out_channels if isinstance(module, nn.Linear) else torch_pruning.prune_conv_out_channels
        )
        try:
            group = graph.get_pruning_group(module, prune, idxs=dead)
            if graph.check_pruning_group(group):
                group.prune()
            else:
                refused += 1
        except Exception:  # what it raises depends on the network; each counts as refused
            refused += 1
    return model, refused


def difference(masked: nn.Module, narrow: nn.Module, x: Tensor) -> float:
    """Max |difference| of two networks in float64."""
    with torch.no_grad():
        expected = copy.deepcopy(masked).double().eval()(x.double())
        try:
            actual = copy.deepcopy(narrow).double().eval()(x.double())
        except RuntimeError:
            return float("inf")
    return float((expected - actual).abs().max()) if expected.shape == actual.shape else float("inf")


def compare(name: str, fraction: float, scope: Any, unit: Any) -> dict[str, Any]:
    """One row of the table."""
    model = settled(name)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    kill(model, unit_groups(model, x, prunable_weights(model), scope=scope, unit=unit), fraction)
    start = time.perf_counter()
    ours = shrink(model, x)
    ours_seconds = time.perf_counter() - start
    start = time.perf_counter()
    theirs, refused = with_torch_pruning(model, x)
    theirs_seconds = time.perf_counter() - start
    error = difference(model, theirs, x)
    parameters = sum(parameter.numel() for parameter in theirs.parameters())
    macs = parameters_and_macs(theirs, x)[1] if error < float("inf") else None
    row = {
        "network": name,
        "parameters": ours.report.parameters_before,
        "ours_parameters": ours.report.parameters_after,
        "theirs_parameters": parameters,
        "macs": ours.report.macs_before,
        "ours_macs": ours.report.macs_after,
        "theirs_macs": macs,
        "ours_error": ours.report.max_error,
        "theirs_error": error if error < float("inf") else "does not run",
        "ours_seconds": round(ours_seconds, 2),
        "theirs_seconds": round(theirs_seconds, 2),
        "theirs_refused_layers": refused,
    }
    assert ours.report.max_error <= 1e-10 * ours.report.max_output
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--fraction", type=float, default=0.5)
    parser.add_argument("--scope", choices=("layer", "group"), default="group")
    parser.add_argument("--unit", choices=("whole", "filter"), default="whole")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print(f"torch {torch.__version__}, torch-pruning {torch_pruning.__version__}, {torch.get_num_threads()} threads")
    for name in arguments.networks:
        rows.append(compare(name, arguments.fraction, arguments.scope, arguments.unit))
        print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
