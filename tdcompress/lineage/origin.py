"""Where a network comes from: the seed, data, architecture and method of its training, as keys know them."""

from collections.abc import Mapping, MutableMapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any, Self, TypeVar

from tdcompress.artifacts import Artifact
from tdcompress.codec import Coded, Json, decode, decode_written, encode
from tdcompress.data.base import Dataset, DataSettings, HashFile
from tdcompress.data.registry import DATASETS
from tdcompress.errors import ArtifactError, DataError, UserError
from tdcompress.lineage.versions import check_version
from tdcompress.methods.base import MethodSettings
from tdcompress.methods.registry import METHODS
from tdcompress.models.base import ModelSettings
from tdcompress.models.registry import settings_type
from tdcompress.tasks.base import LearningTask
from tdcompress.tasks.registry import TASKS

T = TypeVar("T")

CHANGED = "If this comes again, a file was changed but kept its size and time: touch it"  # those tell the hash of a file
NOTHING: Mapping[str, Artifact] = MappingProxyType({})
_LOADING = Lock()  # trainings in threads share what one of them loads
_PLACE = ("root", "download")  # keys that say where data lies; the content's hash says what it is


@dataclass(frozen=True, kw_only=True)
class KnownData(Coded):
    """A data set by what it holds, wherever it lies.

    Attributes:
        content: hash of all that is read.
        settings: its other keys; those that say where it lies are at their defaults.
    """

    content: str
    settings: DataSettings

    @classmethod
    def of(cls, settings: DataSettings, hash_file: HashFile | None = None) -> Self:
        """Hash a data set where it lies.

        Raises:
            DataError: data that is missing or damaged.
        """
        usual = {field.name: field.default for field in fields(settings) if field.name in _PLACE and field.default is not MISSING}
        return cls(content=settings.content_hash(hash_file), settings=_placed(settings, **usual))

    def for_preparing(self, places: MutableMapping[str, Path], hash_file: HashFile) -> Self:
        """What of it is read to prepare it for trainings.

        Args:
            places: root folders by content; this one's is added.
            hash_file: path -> sha256 in hex.

        Raises:
            DataError: data that is missing or damaged.
        """
        root = places[self.content]
        part = self.of(_placed(self.settings.for_preparing(), root=str(root)), hash_file)
        places[part.content] = root
        return part

    def load(self, places: Mapping[str, Path]) -> Dataset:
        """Read it, once for all stages of a run.

        Args:
            places: root folders by content.

        Raises:
            DataError: data that is missing or damaged, or other data than this.
        """
        placed = any(field.name == "root" for field in fields(self.settings)) and self.content in places
        settings = _placed(self.settings, root=str(places[self.content])) if placed else self.settings
        with _LOADING:
            loaded = _loaded(self.content, settings.stored())
        return settings.finished(loaded)

    def task(self, places: Mapping[str, Path], inputs: Mapping[str, Artifact] = NOTHING) -> LearningTask:
        """What is learnt from it.

        Args:
            places: root folders by content.
            inputs: of a training on it, by role: among them all that stages prepare of it. Without any, what they prepare is not
                made yet, and only the task's `interface` is known.

        Raises:
            DataError: as ``load``.
            ArtifactError: what was prepared does not verify, or another version of its stage made it.
        """
        kind = TASKS[self.settings.task]
        return kind(self.load(places), **{role: _prepared(inputs[role]) for role in kind.prepares if inputs})

    def to_json(self) -> Json:  # noqa: D102
        kept = {key: value for key, value in encode(self.settings).items() if key not in _PLACE}
        return {"name": self.settings.name, "content": self.content, **kept}

    @classmethod
    def from_json(cls, value: Json, where: str) -> Self:  # noqa: D102
        name, values = _named(value, where)
        content = str(values.pop("content", ""))
        if name not in DATASETS:
            raise ValueError(f"{where}.name: there is no data set {name!r}")
        return cls(content=content, settings=decode(DATASETS[name], values, where))


def _prepared(artifact: Artifact) -> bytes:
    """The one file of an artefact that was made of a data set."""
    check_version(artifact)
    (name,) = artifact.files
    return artifact.file(name).read_bytes()


def _placed(settings: DataSettings, **keys: Any) -> DataSettings:
    """The same data set elsewhere."""
    return replace(settings, **keys)


@lru_cache(maxsize=2)
def _loaded(content: str, settings: DataSettings) -> Dataset:
    """What is held in memory, which all share whose settings differ in what comes after loading alone.

    It is told by its content too: the same files can hold other data later. They are hashed after they were read, not taken from
    a remembered hash. So what is held is what the key says, whatever happened to the files since the key was made.

    Raises:
        DataError: missing, damaged or other data.
    """
    loaded = settings.load()
    if settings.content_hash() == content:
        return loaded
    root = getattr(settings, "root", None)
    if root is None:
        raise DataError(f"{settings.name}: the network was trained on other data than the package has")
    raise DataError(
        f"{settings.name}: what lies in {root} is other data than the network was trained on, or was changed after the run "
        f"hashed it; put that data there, or run again. {CHANGED}"
    )


@dataclass(frozen=True, kw_only=True)
class NamedModel(Coded):
    """An architecture by its name.

    Attributes:
        name: as written; "torchvision/resnet18" is a name too.
        init: sha256 of the file of weights that the training starts from, "dirac", or None.
        settings: the network's own keys.
    """

    name: str
    init: str | None
    settings: ModelSettings

    def to_json(self) -> Json:  # noqa: D102
        return {"name": self.name, "init": self.init, **encode(self.settings)}

    @classmethod
    def from_json(cls, value: Json, where: str) -> Self:  # noqa: D102
        name, values = _named(value, where)
        init = values.pop("init", None)
        try:
            kind = settings_type(name)
        except UserError as error:
            raise ValueError(f"{where}.name: {error}") from None
        return cls(name=name, init=init, settings=decode(kind, values, where))


@dataclass(frozen=True, kw_only=True)
class NamedMethod(Coded):
    """A training method by its name."""

    settings: MethodSettings

    def to_json(self) -> Json:  # noqa: D102
        return {"name": self.settings.name, **encode(self.settings)}

    @classmethod
    def from_json(cls, value: Json, where: str) -> Self:  # noqa: D102
        name, values = _named(value, where)
        if name not in METHODS:
            raise ValueError(f"{where}.name: there is no method {name!r}")
        return cls(settings=decode(METHODS[name], values, where))


def _named(value: Json, where: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError(f"{where}.name: missing")
    return value["name"], {key: item for key, item in value.items() if key != "name"}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What makes a trained network what it is, besides how long and by what optimizer it was trained.

    Attributes:
        seed: of every random generator.
        data: what it was trained on.
        model: its architecture.
        method: of its training.
    """

    seed: int
    data: KnownData
    model: NamedModel
    method: NamedMethod


def ancestor(artifact: Artifact, stage: str) -> Artifact | None:
    """The nearest artefact of a stage on the way back through the inputs, this one included; its files are not checked.

    Args:
        artifact: where the way begins.
        stage: what is looked for.

    Raises:
        ArtifactError: one on the way is missing, does not verify, or is of another version of its stage.
    """
    generation = [artifact]
    while generation:
        for each in generation:
            check_version(each)
            if each.stage == stage:
                return each
        generation = [each.input(role) for each in generation for role in each.inputs]
    return None


def training_of(artifact: Artifact) -> Artifact:
    """The training behind an artefact, which may be that artefact itself.

    Raises:
        ArtifactError: there is none; or as `ancestor`.
    """
    trained = ancestor(artifact, "train")
    if trained is None:
        raise ArtifactError(f"{artifact.folder}: comes from no training")
    return trained


def origin_of(artifact: Artifact) -> Origin:
    """Where the network of an artefact comes from.

    Raises:
        ArtifactError: as ``training_of``, or settings that cannot be read.
    """
    trained = training_of(artifact)
    own = {field.name for field in fields(Origin)}
    return settings_of(Origin, trained, {key: value for key, value in trained.settings.items() if key in own})


def learning_task_of(artifact: Artifact, places: Mapping[str, Path]) -> LearningTask:
    """What the network of an artefact was trained for, with what stages prepared of its data.

    Args:
        artifact: of any stage that makes a network.
        places: root folders of data, by content.

    Raises:
        ArtifactError: as ``training_of``; or what was prepared is missing, damaged, or of another version.
        DataError: as `KnownData.load`.
    """
    trained = training_of(artifact)
    data = origin_of(trained).data
    return data.task(places, {role: trained.input(role) for role in TASKS[data.settings.task].prepares})


def settings_of(kind: type[T], artifact: Artifact, values: Json | None = None) -> T:
    """An artefact's settings as its stage's type: all of them, as they were hashed. What they lack is not filled in.

    Args:
        kind: the type.
        artifact: of that stage.
        values: the settings where they are not all of them.

    Raises:
        ArtifactError: settings that cannot be read, or of another shape than the type's; or an artefact of another version of its
            stage.
    """
    check_version(artifact)
    try:
        return decode_written(kind, artifact.settings if values is None else values, "settings")
    except ValueError as error:
        raise ArtifactError(f"{artifact.folder}: of another version ({error}); run the recipe again to rebuild it") from None
