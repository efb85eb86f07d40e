"""A stage that is new is named once, in the registry of steps: plans, names, runs and reports follow."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from small_recipes import small_recipe

from tdcompress.errors import RecipeError
from tdcompress.lineage import versions
from tdcompress.lineage.network import MODEL, load_network, save_tensors
from tdcompress.lineage.origin import origin_of
from tdcompress.pipeline import Stage, Workspace
from tdcompress.recipes.source import parse_recipe
from tdcompress.records.stages import StoreRecord
from tdcompress.report.details import accuracies
from tdcompress.report.series import as_trained, group
from tdcompress.runs.plan import RunPlan, plan_run
from tdcompress.stages import STAGES
from tdcompress.steps import STEPS, NetworkStep
from tdcompress.stores.folder import FolderStore

TEXT = small_recipe(
    "toy",
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
    width=4,
    hidden=8,
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The [halve] table: weights are multiplied by a half, so often.

    Attributes:
        times: 0 = the step is left out.
    """

    times: int = 0


def run(settings: Settings, work: Workspace) -> StoreRecord:
    network = work.inputs["network"]
    task = origin_of(network).data.task(work.machine.places)
    model = load_network(network, task)
    state = {
        name: value * 0.5**settings.times if name.startswith("head") else value for name, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    save_tensors(state, work.folder / MODEL)
    return StoreRecord(
        stored_bytes=1, dense_bytes=2, measure=task.measure, accuracy=task.measured(model, torch.device(work.machine.device))
    )


@pytest.fixture
def halve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered: in the versions, the stages and the steps, as the design page says."""
    monkeypatch.setattr(versions, "VERSIONS", {**versions.VERSIONS, "halve": 1})
    monkeypatch.setitem(STAGES, "halve", Stage(name="halve", version=1, settings=Settings, run=run, record=StoreRecord))
    monkeypatch.setitem(
        STEPS,
        "halve",
        NetworkStep(
            stage="halve",
            taken=lambda settings: settings["halve"].times > 0,
            fills=lambda record: {"accuracy_finetuned": record.accuracy},
            accuracy=lambda row: row.accuracy_finetuned,
            form="halved",
            verb="halve",
            word="halving",
        ),
    )


def plan(tmp_path: Path, **changes: Any) -> RunPlan:
    return plan_run(parse_recipe(TEXT, "toy.toml", changes), FolderStore(tmp_path))


SWEPT = {"sweep.halve.times": [0, 1, 2]}


def test_a_registered_step_is_planned_where_it_is_taken(halve: None, tmp_path: Path) -> None:
    rows = plan(tmp_path, **SWEPT).rows
    assert [list(row.steps) for row in rows] == [["prune", "store"], *[["prune", "store", "halve"]] * 2]
    assert [row.deployed.title for row in rows[:2]] == ["store none 0.5", "halve none 0.5"]
    assert rows[2].deployed.inputs == {"network": rows[2].steps["store"]}
    assert rows[2].deployed.settings == Settings(times=2)
    assert len({row.export.key for row in rows}) == 3
    assert len({row.steps["store"].key for row in rows}) == 1


def test_its_table_is_one_of_a_recipe(halve: None, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"halve\.time: unknown key; did you mean 'times'"):
        plan(tmp_path, **{"halve.time": 1})
    assert plan(tmp_path).recipe_key != plan(tmp_path, **{"halve.times": 1}).recipe_key


def test_it_is_no_table_where_no_step_is_registered(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="halve: unknown key"):
        plan(tmp_path, **{"halve.times": 1})


def test_its_keys_tell_rows_apart(halve: None, tmp_path: Path) -> None:
    rows = plan(tmp_path, **SWEPT).rows
    assert [row.id for row in rows] == ["none-0.5", "none-halve-times1-0.5", "none-halve-times2-0.5"]
    assert [row.config.differs for row in rows] == [{}, {"halve.times": 1}, {"halve.times": 2}]


def test_it_is_run_and_reported(halve: None, run_text: Any, tmp_path: Path) -> None:
    finished, watcher = run_text(TEXT, tmp_path, SWEPT)
    assert watcher.made.count("halve") == 2
    report = finished.report
    assert [row.accuracy_finetuned is None for row in report.rows] == [True, False, False]
    assert [series.label for series in group(report.rows)] == ["none", "none (halving times 1)", "none (halving times 2)"]
    assert len({as_trained(row).differs == {} for row in report.rows}) == 1
    table = accuracies(report)
    assert [column.title for column in table.columns] == [
        "row", "as trained, %", "masked, %", "stored, %", "halved, %", "ONNX, %", "samples apart",
    ]  # fmt: skip
    assert [line[-1] for line in table.rows] == ["0", "0", "0"]  # halved, it is another network
    resolved = tomllib.loads((finished.folder / "recipe.toml").read_text(encoding="utf-8"))
    assert "halve" not in resolved  # the sweep changes it
    assert (finished.folder / "none-halve-times2-0.5.onnx").is_file()
