"""Stage "store": a weight-pruned network -> scipy CSR on disk, read back bit-exactly and measured."""

from dataclasses import dataclass

import torch

from tdcompress.errors import VerificationError
from tdcompress.lineage.network import WEIGHTS, load_network
from tdcompress.lineage.origin import learning_task_of
from tdcompress.lineage.versions import RECORDS, VERSIONS
from tdcompress.pipeline import Stage, Workspace
from tdcompress.records.stages import StoreRecord
from tdcompress.storage.csr import load_dense, save_arrays


@dataclass(frozen=True, kw_only=True)
class Settings:
    """There is nothing to set."""


def run(settings: Settings, work: Workspace) -> StoreRecord:
    """Write the weights, read them again, and measure what was read.

    Raises:
        VerificationError: a tensor was not read back bit for bit.
    """
    network = work.inputs["network"]
    task = learning_task_of(network, work.machine.places)
    model = load_network(network, task)
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
        measure=task.measure,
        accuracy=task.measured(model, torch.device(work.machine.device)),
    )


STAGE = Stage(name="store", version=VERSIONS["store"], settings=Settings, run=run, record=RECORDS["store"])
