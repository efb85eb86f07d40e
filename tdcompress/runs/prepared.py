"""What stages make of data before any training: the tasks, and whose result is taken where there are several."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from tdcompress.codec import decode, encode
from tdcompress.lineage.origin import KnownData
from tdcompress.lineage.versions import of_this_version
from tdcompress.pipeline import Stage, Task
from tdcompress.stages import STAGES
from tdcompress.stores.store import Store
from tdcompress.tasks.registry import TASKS


def prepared_tasks(
    data: KnownData, places: MutableMapping[str, Path], store: Store, trainings: Callable[[Mapping[str, Task]], Sequence[Task]]
) -> dict[str, Task]:
    """The tasks that make what a training needs besides its data, by role; none where it needs nothing.

    What a library makes depends on its version, so the key has that. Where another version's result is there, it is taken: what
    was trained with it elsewhere goes on here. Of several it is the one with most trainings there, then this machine's own.

    Such a stage's settings are ``data``, what it reads of the data set, and ``maker``: the library that makes it.

    Args:
        data: what is trained on.
        places: root folders by content; those of what is prepared are added.
        store: where artefacts are.
        trainings: the trainings on this data, from such tasks.

    Raises:
        DataError: data that is missing or damaged.
        UserError: the library is not installed.
    """
    chosen: dict[str, Task] = {}
    for role in TASKS[data.settings.task].prepares:
        own = _task(STAGES[role], STAGES[role].settings.here(data.for_preparing(places, store.hashes.sha256)))
        there = [*([own] if store.exists(role, own.key) else []), *_by_other_versions(own, store)]

        def trained(task: Task, role: str = role) -> int:
            return sum(store.exists(training.stage.name, training.key) for training in trainings({**chosen, role: task}))

        chosen[role] = max(there, key=trained) if len(there) > 1 else (there or [own])[0]
    return chosen


def _by_other_versions(own: Task, store: Store) -> Iterator[Task]:
    """What other versions of the library made of the same, as far as it is there and whole."""
    for key in store.keys(own.stage.name):
        if key == own.key or (found := store.find_or_set_aside(own.stage.name, key, own.stage.record)) is None:
            continue
        said = found.settings
        same = isinstance(said, Mapping) and {**said, "maker": own.settings.maker} == encode(own.settings)
        if same and of_this_version(found):
            yield _task(own.stage, decode(own.stage.settings, said))


def _task(stage: Stage[Any], settings: Any) -> Task:
    return Task(stage=stage, settings=settings, title=f"{stage.name} of {settings.data.settings.name}")
