"""One short training of a small network on digits, as a recipe, and what tests of the stages know of it."""

from small_recipes import small_recipe

from tdcompress.artifacts import Artifact

TABLES = """
[sparsity]
method = "{method}"

[train]
epochs = 1
batch_size = 32
optimizer = {{ name = "sgd", lr = 0.05, momentum = 0.9 }}
"""
UNITS = {"sparsity.granularity": "unit", "sparsity.gamma": 0.5, "sparsity.alpha": 0.5}
SAMPLES = 359  # of the test set


def short_recipe(method: str, prune: str = "fraction = 0.5") -> str:
    """A recipe of one such training by a method; ``prune`` are the lines of [prune]."""
    return small_recipe("short", TABLES.format(method=method), width=8, hidden=16, prune=prune)


def layers(artifact: Artifact) -> dict[str, tuple[int, int, list[int]]]:
    """Of each prunable matrix of a pruned network: how many weights it has, how many are kept, and its shape."""
    return {layer["name"]: (layer["total"], layer["kept"], layer["shape"]) for layer in artifact.record["layers"]}
