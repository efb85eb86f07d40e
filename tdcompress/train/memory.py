"""Running out of memory, said in the words of a recipe."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tdcompress.errors import TrainingError
from tdcompress.train.settings import TrainSettings


@contextmanager
def named_memory_errors(settings: TrainSettings) -> Iterator[None]:
    """Turn a failed allocation of the block into a TrainingError that says what to do."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _no_memory(settings) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise _no_memory(settings) from error


def _no_memory(settings: TrainSettings) -> TrainingError:
    return TrainingError(
        f"out of memory with train.batch_size = {settings.batch_size} and train.accumulate = {settings.accumulate}: "
        "raise accumulate (same result, less memory) or lower batch_size"
    )
