"""A run counts what its trainings left at zero, and what pruning found beyond that."""

from pathlib import Path
from typing import Any

import pytest
from small_recipes import small_recipe

from tdcompress.report import text

TEXT = small_recipe(
    "frozen",
    """
[sparsity]
method = "targeted"
gamma = 0.5
alpha = 1.0
schedule = "cubic"

[train]
epochs = 2
batch_size = 32
optimizer = { name = "sgd", lr = 0.05, momentum = 0.9 }

[export]
select = { max_accuracy_drop = 1.0 }

[sweep]
"sparsity.granularity" = ["weight", "unit"]
"prune.fraction" = [0.0, 0.75]
""",
    width=4,
    hidden=8,
)


def test_zeros_of_the_training_are_counted_among_what_the_row_may_prune(run_text: Any, tmp_path: Path) -> None:
    finished, _ = run_text(TEXT, tmp_path, {"prune.exclude": ["conv1"]})
    rows = finished.report.rows
    assert [row.sparsity_trained for row in rows] == pytest.approx([0.5] * 4)
    assert [row.sparsity_prunable for row in rows] == pytest.approx([0.5, 0.75, 0.5, 0.75])
    assert [text.pruned(row) for row in rows] == ["50 % of weights", "75 % of weights", "50 % of units", "75 % of units"]
    assert [(units.name, units.total, units.kept) for units in rows[3].units][:2] == [("conv1", 4, 2), ("conv2", 8, 2)]
    assert rows[0].units == ()
