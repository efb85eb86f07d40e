"""One file per stage: its settings, and what it does with them and its inputs. Knows no recipe."""

from typing import Any

from tdcompress.pipeline import Stage
from tdcompress.stages import analyse, bench, export, finetune, prune, shrink, store, train, vocabulary

STAGES: dict[str, Stage[Any]] = {
    stage.name: stage
    for stage in (
        vocabulary.STAGE,
        train.STAGE,
        prune.STAGE,
        finetune.STAGE,
        shrink.STAGE,
        store.STAGE,
        export.STAGE,
        bench.STAGE,
        analyse.STAGE,
    )
}
