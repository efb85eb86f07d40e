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
    key = "batch_size" if settings.batch_tokens is None else "batch_tokens"
    return TrainingError(
        f"out of memory with train.{key} = {getattr(settings, key)} and train.accumulate = {settings.accumulate}: "
        f"raise accumulate (less memory; the same result, but that BatchNorm sees each micro-batch by itself) or lower {key}"
    )
