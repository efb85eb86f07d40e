"""A run says what could not be pruned, and its row how much was."""

from pathlib import Path
from typing import Any

import pytest
from small_recipes import small_recipe

from tdcompress.records.stages import PrunedCount

TEXT = small_recipe(
    "reach",
    """
[sparsity]
method = "none"

[train]
epochs = 1
batch_size = 32
optimizer = { name = "sgd", lr = 0.05, momentum = 0.9 }

[export]
select = { max_accuracy_drop = 1.0 }
""",
    prune='fraction = 0.99\nshares = "global"',
)


def test_the_rows_reason_says_how_much_was_pruned(run_text: Any, tmp_path: Path) -> None:
    """4 x 9 + 8 x 36 + 8 x 72 + 8 x 32 weights in 28 filters."""
    with pytest.warns(UserWarning, match=r"1,144 of 1,156 weights were to be pruned, and 1,128 are \(97\.58%\)"):
        finished, _ = run_text(TEXT, tmp_path, {})
    (row,) = finished.report.rows
    assert row.pruned == PrunedCount(total=1156, asked=1144, gone=1128)
    assert row.why.endswith("; 1,128 of 1,156 weights are pruned, 97.58 % where 99 % were asked for")
