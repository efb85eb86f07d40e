"""What several stages need: data on a device, a fresh network, its targets, and networks read back from artefacts."""

import copy
import json
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tdcompress.artifacts import Artifact
from tdcompress.data.base import Dataset, DataSettings
from tdcompress.errors import ModelError
from tdcompress.files import published
from tdcompress.methods.base import MethodSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.models.initialise import DIRAC, dirac
from tdcompress.models.registry import instantiate
from tdcompress.records import LayerCount
from tdcompress.shrink.groups import unit_groups
from tdcompress.shrink.rebuild import narrow
from tdcompress.sparsity.units import Targets, prunable_weights
from tdcompress.stages.experiment import Experiment
from tdcompress.storage.csr import load_dense
from tdcompress.train.evaluate import accuracy
from tdcompress.train.samples import TrainData, derived_seed, first_sides

MODEL, METHOD, MASKS = "model.safetensors", "method.safetensors", "masks.safetensors"
KEPT, WEIGHTS = "kept_channels.json", "weights.npz"
EVALUATION_BATCH = 500


@lru_cache(maxsize=2)
def load_data(settings: DataSettings) -> Dataset:
    """The data set, read once for all stages of a run."""
    return settings.load()


def train_samples(experiment: Experiment) -> TrainData:
    """Training samples with their augmentation."""
    data = load_data(experiment.data)
    return TrainData(
        pixels=data.train.pixels,
        labels=data.train.labels,
        preprocess=data.preprocess,
        augment=data.augmentation,
        sides=first_sides(len(data.train), experiment.seed) if data.augmentation.flip == "alternating" else None,
    )


def plain_batches(experiment: Experiment, count: int, device: torch.device) -> list[Tensor]:
    """Preprocessed training images, not augmented, drawn from the seed without replacement; all where there are no more.

    Returns:
        Batches of float32 (B, C, H, W) on the device.
    """
    data = load_data(experiment.data)
    generator = torch.Generator().manual_seed(derived_seed(experiment.seed, "recalibrate"))
    chosen = torch.randperm(len(data.train), generator=generator)[:count]
    preprocess = copy.deepcopy(data.preprocess).to(device)
    with torch.no_grad():
        return [preprocess(data.train.pixels[part].to(device)) for part in torch.split(chosen, EVALUATION_BATCH)]


def test_samples(experiment: Experiment) -> TrainData:
    """Test samples: what every accuracy is measured on."""
    data = load_data(experiment.data)
    return TrainData(pixels=data.test.pixels, labels=data.test.labels, preprocess=data.preprocess)


def example_inputs(experiment: Experiment, count: int = 2) -> Tensor:
    """Some preprocessed test images, float32 (B, C, H, W) on the CPU."""
    data = load_data(experiment.data)
    with torch.inference_mode():
        images: Tensor = data.preprocess(data.test.pixels[:count])
    return images.clone().contiguous()


def fresh_network(experiment: Experiment) -> nn.Module:
    """The dense network on the CPU, with its initial weights.

    Raises:
        ModelError: the initial weights do not fit the network.
    """
    data = load_data(experiment.data)
    model = instantiate(experiment.model, classes=len(data.classes), image=data.image, seed=experiment.seed)
    if experiment.init == DIRAC:
        dirac(model)
    elif experiment.init is not None:
        load_weights(model, Path(experiment.init))
    return model


def load_weights(model: nn.Module, path: Path) -> None:
    """Read all weights of a network from a safetensors file.

    Raises:
        ModelError: the file is not safetensors, or its tensors are not the network's.
    """
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: does not hold the weights of this {type(model).__name__}: {reason}") from None


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Publish a safetensors file."""
    with published(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, temporary)


def dense_network(experiment: Experiment, artifact: Artifact) -> nn.Module:
    """The network of a training, pruning or fine-tuning, on the CPU in eval mode."""
    model = fresh_network(experiment)
    load_weights(model, artifact.file(MODEL))
    return model.eval()


def narrow_network(experiment: Experiment, artifact: Artifact) -> nn.Module:
    """The network of a shrinking, or of a fine-tuning after it, on the CPU in eval mode."""
    model = narrow(fresh_network(experiment), json.loads(artifact.file(KEPT).read_text()))
    load_weights(model, artifact.file(MODEL))
    return model.eval()


def trained_network(experiment: Experiment, trained: Artifact) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network as its training deploys it, unpruned, and the method's own scores."""
    model = dense_network(experiment, trained)
    settings = experiment.method
    trained_on = find_targets(experiment, model, settings, units=settings.granularity == "unit")
    net = SparseNet(model, settings.build(trained_on, model), l1=settings.l1)
    net.method.load_state_dict(load_file(trained.file(METHOD)))
    scores = net.method.scores(net.parameters_by_name())
    return net.plain(), scores


def deployed_network(experiment: Experiment, artifact: Artifact) -> nn.Module:
    """The network as an artefact deploys it: trained, stored as sparse weights, or narrow; on the CPU in eval mode."""
    if artifact.stage == "store":
        model = fresh_network(experiment)
        arrays = load_dense(artifact.file(WEIGHTS))
        model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        return model.eval()
    if KEPT in artifact.files:
        return narrow_network(experiment, artifact)
    if artifact.stage == "train":
        return trained_network(experiment, artifact)[0]
    return dense_network(experiment, artifact)


def find_targets(experiment: Experiment, model: nn.Module, settings: MethodSettings, *, units: bool) -> Targets:
    """What may be dropped and pruned in a network, by these settings."""
    weights = prunable_weights(model, settings.exclude)
    if not units:
        return Targets(weights=weights)
    groups = unit_groups(model, example_inputs(experiment), weights, scope=settings.scope, unit=settings.unit)
    return Targets(weights=weights, groups=groups)


def measured_accuracy(experiment: Experiment, model: nn.Module, device: torch.device) -> float:
    """Accuracy on the test set in float32, 0..1."""
    return accuracy(model.to(device), test_samples(experiment).to(device), EVALUATION_BATCH, device)


def count_layers(model: nn.Module, targets: Targets) -> tuple[LayerCount, ...]:
    """Entries and non-zero entries of each prunable matrix."""
    params = dict(model.named_parameters())
    return tuple(
        LayerCount(
            name=slot.parameter,
            shape=tuple(params[slot.parameter].shape),
            total=params[slot.parameter].numel(),
            kept=int(params[slot.parameter].count_nonzero()),
        )
        for slot in targets.weights
    )
