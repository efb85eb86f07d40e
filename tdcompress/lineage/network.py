"""Networks read back from artefacts: each is known by its own manifest and those of what it was made from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tdcompress.artifacts import Artifact
from tdcompress.codec import decode_file
from tdcompress.errors import ModelError, one_line
from tdcompress.files import published, sha256_file
from tdcompress.lineage.origin import CHANGED, Origin, learning_task_of, origin_of
from tdcompress.lineage.units import units_of
from tdcompress.methods.wrapper import SparseNet
from tdcompress.models import weights
from tdcompress.models.initialise import DIRAC, dirac
from tdcompress.models.registry import instantiate
from tdcompress.shrinking.rebuild import narrow
from tdcompress.sparsity.units import Targets, prunable_weights
from tdcompress.storage.csr import load_dense
from tdcompress.tasks.base import LearningTask

MODEL, METHOD, MASKS = "model.safetensors", "method.safetensors", "masks.safetensors"
KEPT, WEIGHTS = "kept_channels.json", "weights.npz"


def load_network(artifact: Artifact, task: LearningTask | None = None) -> nn.Module:
    """The network as an artefact deploys it: trained, pruned, fine-tuned, stored as sparse weights, or narrow.

    Args:
        artifact: of any stage that makes a network; nothing else is needed to know what it holds.
        task: what it was trained for, which says what it takes and gives; None = read its data where they usually lie.

    Returns:
        The network on the CPU in eval mode.

    Raises:
        ArtifactError: a file of it is missing or damaged; what it was made from is missing, or another version of a stage made
            one of them.
        DataError: its data set is missing, or is another one.
        ModelError: weights, or channels that are kept, that do not fit the network.
    """
    origin = origin_of(artifact)
    task = task or learning_task_of(artifact, {})
    if artifact.stage == "train":
        return trained_network(artifact, task)[0]
    model = new_network(origin, task)
    if artifact.stage == "store":
        path = artifact.file(WEIGHTS)
        _restore(model, {name: torch.from_numpy(array) for name, array in load_dense(path).items()}, path)
        return model.eval()
    if KEPT in artifact.files:
        model = _narrowed(model, artifact.file(KEPT))
    restore_weights(model, artifact.file(MODEL))
    return model.eval()


def _narrowed(model: nn.Module, path: Path) -> nn.Module:
    """A narrow copy of a network, by its kept_channels.json."""
    kept = decode_file(dict[str, Any], path)
    try:
        return narrow(model, kept)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def trained_network(trained: Artifact, task: LearningTask) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network as its training deploys it, unpruned, and the method's own scores.

    Args:
        trained: of the stage "train".
        task: what it was trained for.
    """
    origin = origin_of(trained)
    model = new_network(origin, task)
    restore_weights(model, trained.file(MODEL))
    method = origin.method.settings
    net = SparseNet(model.eval(), method.build(training_targets(origin, model, task), model), l1=method.l1)
    restore_weights(net.method, trained.file(METHOD))
    scores = net.method.scores(net.parameters_by_name())
    return net.plain(), scores


def new_network(origin: Origin, task: LearningTask) -> nn.Module:
    """The dense network on the CPU as its constructor makes it."""
    return instantiate(origin.model.settings, interface=task.interface, seed=origin.seed)


def initial_network(origin: Origin, task: LearningTask, places: Mapping[str, Path]) -> nn.Module:
    """The dense network on the CPU, with the weights that its training starts from.

    Args:
        origin: of the training.
        task: what it was trained for.
        places: files of initial weights, by their sha256.

    Raises:
        ModelError: the file of initial weights is not known, has changed, or does not fit the network; or "dirac" does not.
    """
    model = new_network(origin, task)
    init = origin.model.init
    if init == DIRAC:
        dirac(model)
    elif init is not None:
        if init not in places:
            raise ModelError(f"model.init: where the initial weights with sha256 {init} lie is not known")
        path = places[init]
        weights.load_weights(model, path)
        if sha256_file(path) != init:  # after it was read, and not from memory: what was read is what the key says
            raise ModelError(
                f"model.init: {path} was changed after the run hashed it; put back what it was, or run again. {CHANGED}"
            )
    return model


def restore_weights(model: nn.Module, path: Path) -> None:
    """Read all weights of a network from a safetensors file.

    Raises:
        ModelError: the file is not safetensors, or its tensors are not the network's.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: does not hold the weights of a network: {one_line(error)}") from None
    _restore(model, tensors, path)


def _restore(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(f"{path}: does not hold the weights of this {type(model).__name__}: {one_line(error)}") from None


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Publish tensors of any shape, by name, as a safetensors file.

    Raises:
        OSError: it cannot be written.
    """
    with published(path) as temporary:
        try:
            save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, temporary)
        except SafetensorError as error:  # what the system refused is its text alone
            raise OSError(one_line(error)) from None


def training_targets(origin: Origin, model: nn.Module, task: LearningTask) -> Targets:
    """What a method may touch in a network while it trains.

    Args:
        origin: of the training.
        model: the dense network, on the CPU.
        task: what it is trained for.
    """
    method = origin.method.settings
    weights = prunable_weights(model, method.exclude)
    if method.granularity != "unit":
        return Targets(weights=weights)
    return Targets(weights=weights, groups=units_of(origin, method, model, task).groups)
