"""Stage "store": a weight-pruned network -> scipy CSR on disk, read back bit-exactly and measured."""

import torch

from tdcompress.errors import VerificationError
from tdcompress.pipeline import Workspace
from tdcompress.records import StoreRecord
from tdcompress.stages.experiment import Experiment
from tdcompress.stages.network import WEIGHTS, dense_network, measured_accuracy
from tdcompress.storage.csr import load_dense, save_arrays

VERSION = 2


def run(experiment: Experiment, device: torch.device, work: Workspace) -> StoreRecord:
    """Write the weights, read them again, and measure what was read."""
    model = dense_network(experiment, work.inputs["network"])
    path = work.folder / WEIGHTS
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    size = save_arrays(arrays, path)
    stored = load_dense(path)
    for name, array in arrays.items():
        if stored[name].dtype != array.dtype or stored[name].tobytes() != array.tobytes():
            raise VerificationError(f"{path.name}: tensor {name} was not read back bit for bit")
    model.load_state_dict({name: torch.from_numpy(array) for name, array in stored.items()})
    return StoreRecord(
        stored_bytes=size,
        dense_bytes=sum(array.nbytes for array in arrays.values()),
        accuracy=measured_accuracy(experiment, model, device),
    )
