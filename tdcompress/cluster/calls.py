"""What crosses between the driver of a run and its workers on other machines: JSON. Knows no Ray and no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from tdcompress import errors
from tdcompress.codec import Json, decode, encode
from tdcompress.errors import InterruptedRun, TdcompressError, one_line
from tdcompress.pipeline import Stage, Task


@dataclass(frozen=True, kw_only=True)
class Described:
    """One task.

    Attributes:
        stage: its name.
        settings: as JSON.
        inputs: keys by role.
        key: what the driver takes it for.
        title: what people read.
    """

    stage: str
    settings: Json
    inputs: dict[str, str]
    key: str
    title: str


@dataclass(frozen=True, kw_only=True)
class StageCall:
    """A task to be made.

    Attributes:
        place: of the store: a folder, absolute, or an URL.
        run: the name of the run, which the driver has claimed there.
        tasks: the task and all that its key is made of, inputs first.
        device: see ``Machine``.
        places: see ``Machine``; absolute.
        threads: to compute with.
    """

    place: str
    run: str
    tasks: tuple[Described, ...]
    device: str
    places: dict[str, str]
    threads: int


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An error of ours on its way: the name of its type, its message, and the signal of an `InterruptedRun`."""

    kind: str
    message: str
    signal_number: int | None = None

    @classmethod
    def of(cls, error: TdcompressError) -> Self:
        """Describe an error."""
        number = error.signal_number if isinstance(error, InterruptedRun) else None
        return cls(kind=type(error).__name__, message=str(error), signal_number=number)

    def error(self) -> TdcompressError:
        """The error again."""
        if self.signal_number is not None:
            return InterruptedRun(self.message, self.signal_number)
        kind = getattr(errors, self.kind, TdcompressError)
        known: TdcompressError = kind(self.message)
        return known


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a call came to: a problem, or an artefact.

    Attributes:
        problem: why there is none.
        seconds: that it took; None = it was there.
        record: the stage's result, as JSON.
        files: sha256 by relative name.
    """

    problem: Problem | None = None
    seconds: float | None = None
    record: Json = None
    files: dict[str, str] | None = None


def describe_task(task: Task) -> tuple[Described, ...]:
    """A task and all that its key is made of, inputs first, each key once."""
    found: dict[str, Described] = {}

    def visit(one: Task) -> None:
        if one.key in found:
            return
        for needed in one.inputs.values():
            visit(needed)
        found[one.key] = Described(
            stage=one.stage.name,
            settings=encode(one.settings),
            inputs={role: needed.key for role, needed in one.inputs.items()},
            key=one.key,
            title=one.title,
        )

    visit(task)
    return tuple(found.values())


def rebuild(described: tuple[Described, ...], stages: Mapping[str, Stage[Any]]) -> Task:
    """The task that ``describe_task`` was given.

    Raises:
        TdcompressError: this installation knows no such stage or settings, or they have another key here.
    """
    made: dict[str, Task] = {}
    for one in described:
        try:
            stage = stages[one.stage]
            inputs = {role: made[key] for role, key in one.inputs.items()}
            task = Task(stage=stage, settings=decode(stage.settings, one.settings), inputs=inputs, title=one.title)
        except (KeyError, ValueError) as error:
            raise TdcompressError(
                f"{one.title}: not known to the tdcompress that is installed here ({one_line(error)})"
            ) from None
        if task.key != one.key:
            raise TdcompressError(
                f"{one.title}: is {one.key} for the driver and {task.key} for the tdcompress that is installed here"
            )
        made[one.key] = task
    return made[described[-1].key]
