"""The fast path's selections choose what `bottom_k` chooses, ties included: torch's operators, and the kernels interpreted."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdcompress.sparsity.scores import protect_largest
from tdcompress.sparsity.select import bottom_k
from tdcompress.train.fast.layout import VectorLayout
from tdcompress.train.fast.select import PortableSelection, Ranked, Selection, ranks

CPU = torch.device("cpu")
SHAPES = {
    "conv": torch.Size((4, 3, 3, 3)),
    "norm": torch.Size((4,)),
    "wide": torch.Size((6, 4, 3, 3)),
    "shortcut": torch.Size((5, 6, 1, 1)),
    "linear": torch.Size((7, 20)),
    "head": torch.Size((2, 7)),
    "bias": torch.Size((2,)),
}
PRUNABLE = ["conv", "wide", "shortcut", "linear"]
LAYOUT = VectorLayout.of(SHAPES, PRUNABLE, [*PRUNABLE, "head", "bias"])
FILTERS = sum(SHAPES[name][0] for name in PRUNABLE)


def values(seed: int, levels: int) -> dict[str, torch.Tensor]:
    """Weights of few different sizes, so that there are many ties."""
    generator = torch.Generator().manual_seed(seed)
    return {name: (torch.randn(shape, generator=generator) * levels).round() / levels for name, shape in SHAPES.items()}


def most(ranked: Ranked) -> list[int]:
    """The largest counts that the selection allows: in layers and in the network every filter keeps one weight."""
    if ranked == "filter":
        return [run.fan_in for run in LAYOUT.runs]
    if ranked == "layer":
        return [piece.size - piece.rows for piece in LAYOUT.matrices]
    return [LAYOUT.prunable_size - FILTERS]


def expected(ranked: Ranked, params: dict[str, torch.Tensor], counts: list[int]) -> torch.Tensor:
    """What `bottom_k` selects, tensor by tensor, in the logical order."""
    scores = {name: params[name].abs().flatten(1) for name in PRUNABLE}
    if ranked == "filter":
        of_run = {(run.fan_in, run.kernel): count for run, count in zip(LAYOUT.runs, counts, strict=True)}
        kernel = {piece.name: piece.kernel for piece in LAYOUT.matrices}
        chosen = {name: bottom_k(rows, of_run[rows.shape[1], kernel[name]]) for name, rows in scores.items()}
    elif ranked == "layer":
        of_layer = {piece.name: count for piece, count in zip(LAYOUT.matrices, counts, strict=True)}
        chosen = {name: bottom_k(protect_largest(rows).flatten(), of_layer[name]) for name, rows in scores.items()}
    else:
        together = bottom_k(torch.cat([protect_largest(scores[name]).flatten() for name in PRUNABLE]), counts[0])
        chosen = dict(zip(PRUNABLE, together.split([SHAPES[name].numel() for name in PRUNABLE]), strict=True))
    return torch.cat([piece.flattened(chosen[piece.name].view(SHAPES[piece.name])) for piece in LAYOUT.matrices])


def check(make: Callable[[Ranked], Selection], ranked: Ranked, seed: int, levels: int, shares: list[float], alpha: float) -> None:
    params = values(seed, levels)
    counts = [int(share * limit) for share, limit in zip(shares, most(ranked), strict=False)]
    uniform = torch.rand(LAYOUT.prunable_size, generator=torch.Generator().manual_seed(seed))
    dropped = make(ranked)(LAYOUT.gather(params), uniform, torch.tensor(counts, dtype=torch.int32), torch.tensor(alpha))
    assert torch.equal(dropped, expected(ranked, params, counts) & (uniform < alpha))


SHARES = st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.77, 0.99, 1.0]), min_size=4, max_size=4)


@pytest.mark.parametrize("ranked", ["filter", "layer", "network"])
@given(seed=st.integers(0, 99), levels=st.sampled_from([1, 3, 1000]), shares=SHARES, alpha=st.sampled_from([0.3, 1.0]))
@settings(deadline=None, max_examples=30)
def test_torchs_operators_choose_as_bottom_k(ranked: Ranked, seed: int, levels: int, shares: list[float], alpha: float) -> None:
    check(lambda ranked: PortableSelection(LAYOUT, ranked), ranked, seed, levels, shares, alpha)


def check_kernels() -> None:
    """What `test_the_kernels_choose_as_bottom_k` runs, in a process of its own."""
    from tdcompress.train.fast.kernels import TritonSelection

    rankings: tuple[Ranked, ...] = ("filter", "layer", "network")
    for ranked in rankings:
        selection = TritonSelection(LAYOUT, ranked, CPU)
        for seed, alpha, levels, shares in (
            (1, 1.0, 1, [0.5, 0.77, 0.1, 1.0]),
            (2, 0.4, 1000, [0.0, 0.99, 0.5, 0.77]),  # this one finds the scratch memory of the first
        ):
            check(lambda _, made=selection: made, ranked, seed, levels, shares, alpha)  # type: ignore[misc]
    print("kernels checked")


def test_the_kernels_choose_as_bottom_k() -> None:
    pytest.importorskip("triton")
    # Triton interprets kernels where it is told to before it is first imported, and another test may have imported it already.
    done = subprocess.run(
        [sys.executable, __file__], env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert "kernels checked" in done.stdout, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("ranked", ["filter", "layer", "network"])
def test_the_compiled_kernels_choose_as_torchs_operators(ranked: Ranked) -> None:
    from tdcompress.train.fast.kernels import TritonSelection

    device = torch.device("cuda")
    generator = torch.Generator(device).manual_seed(0)
    compiled, portable = TritonSelection(LAYOUT, ranked, device), PortableSelection(LAYOUT, ranked)
    for levels in (1, 3, 1000):
        vector = LAYOUT.gather(values(levels, levels)).to(device)
        for share in (0.0, 0.3, 0.9, 1.0):
            counts = torch.tensor([int(share * limit) for limit in most(ranked)], dtype=torch.int32, device=device)
            uniform = torch.rand(LAYOUT.prunable_size, generator=generator, device=device)
            alpha = torch.tensor(0.7, device=device)
            assert torch.equal(compiled(vector, uniform, counts, alpha), portable(vector, uniform, counts, alpha))


def test_no_filter_is_emptied() -> None:
    rows = torch.tensor([[1.0, 3.0, 3.0], [0.0, 0.0, 0.0]])
    assert protect_largest(rows).isinf().tolist() == [[False, False, True], [False, False, True]]


def test_ranks_break_ties_by_index() -> None:
    assert ranks(torch.tensor([[2.0, 1.0, 2.0, 1.0]])).tolist() == [[2, 0, 3, 1]]


if __name__ == "__main__":
    check_kernels()
