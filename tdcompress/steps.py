"""What may happen to a network between its training and its file: the steps, in their order, and how each of them is told.

Recipes, runs and reports read this registry, and name no step that it does not have. Knows no torch: a step is a stage by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tdcompress.records.report import Row
from tdcompress.records.stages import PruneRecord


@dataclass(frozen=True, kw_only=True)
class NetworkStep:
    """One place for a stage on the way from a training to a file.

    Attributes:
        stage: its name.
        taken: settings of the stages that have a table, by name -> whether it is taken.
        fills: the stage's record -> fields of the report's ``Row``. What a later step fills replaces what an earlier one did.
        accuracy: ``Row`` -> the measure right after this step; None where it was left out.
        form: what the network is then, at the head of a column: "shrunk".
        verb: what titles of tasks say: "fine-tune".
        word: what labels of a report say before a key of the table: "fine-tuning"; "" = the key speaks for itself.
        exact: the network computes what it did before, so that both measures have to agree.
        table: whether a recipe says its settings, in a table of the stage's name.
        role: its input's; the input is what the step before made.
    """

    stage: str
    taken: Callable[[Mapping[str, Any]], bool] = lambda settings: True
    fills: Callable[[Any], dict[str, Any]]
    accuracy: Callable[[Row], float | None]
    form: str
    verb: str
    word: str = ""
    exact: bool = False
    table: bool = True
    role: str = "network"


def step_tables() -> dict[str, str]:
    """Tables of a recipe that say what steps do, in their order, each with what labels say before its keys."""
    return {step.stage: step.word for step in STEPS.values() if step.table}


def _whole(record: PruneRecord) -> dict[str, Any]:
    """Of a pruned network that has its full shape."""
    return {
        "layers": record.layers,
        "sparsity_prunable": record.sparsity_prunable,
        "sparsity_model": record.sparsity_model,
    }


def _pruned(record: PruneRecord) -> dict[str, Any]:
    return _whole(record) | {
        "accuracy_masked": record.accuracy,
        "accuracy_before": record.accuracy_before,
        "parameters_total": record.parameters_total,
        "pruned": record.pruned,
    }


def _finetuned(after: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda settings: settings["finetune"].epochs > 0 and settings["finetune"].after == after


def _finetuned_accuracy(after: str) -> Callable[[Row], float | None]:
    return lambda row: row.accuracy_finetuned if row.finetune_after == after else None


STEPS: dict[str, NetworkStep] = {
    "prune": NetworkStep(
        stage="prune",
        fills=_pruned,
        accuracy=lambda row: row.accuracy_masked,
        form="masked",
        verb="prune",
        role="train",
    ),
    "finetune pruned": NetworkStep(
        stage="finetune",
        taken=_finetuned("prune"),
        fills=lambda record: _whole(record) | {"accuracy_finetuned": record.accuracy},
        accuracy=_finetuned_accuracy("prune"),
        form="fine-tuned",
        verb="fine-tune",
        word="fine-tuning",
    ),
    "shrink": NetworkStep(
        stage="shrink",
        taken=lambda settings: settings["prune"].granularity == "unit",
        fills=lambda record: {
            "accuracy_shrunk": record.accuracy,
            "macs": record.macs_after,
            "shrunk": record,
            "units": record.units(),
        },
        accuracy=lambda row: row.accuracy_shrunk,
        form="shrunk",
        verb="shrink",
        word="shrink",
        exact=True,
    ),
    "store": NetworkStep(
        stage="store",
        taken=lambda settings: settings["prune"].granularity != "unit",
        table=False,
        fills=lambda record: {"accuracy_stored": record.accuracy, "stored_bytes": record.stored_bytes},
        accuracy=lambda row: row.accuracy_stored,
        form="stored",
        verb="store",
        exact=True,
    ),
    "finetune shrunk": NetworkStep(
        stage="finetune",
        taken=_finetuned("shrink"),
        fills=lambda record: {"accuracy_finetuned": record.accuracy},
        accuracy=_finetuned_accuracy("shrink"),
        form="fine-tuned after shrinking",
        verb="fine-tune",
        word="fine-tuning",
    ),
}
"""In the order of the network's way; what is left out is passed over."""
