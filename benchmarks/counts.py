"""Counts on the command lines of benchmarks, refused before anything is measured."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from tdcompress.bench.timing import BLOCK_PAIRS


def at_least(least: int, *, step: int = 1) -> Callable[[str], int]:
    """A parser of whole numbers.

    Args:
        least: the smallest that is taken.
        step: of which they have to be multiples.
    """
    wanted = f"a multiple of {step}, {least} or more" if step > 1 else f"{least} or more"

    def count(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or value % step:
            raise argparse.ArgumentTypeError(f"{text} is not {wanted}")
        return value

    return count


PROCESSES = at_least(2)
"""An interval needs two (tdcompress/bench/statistics.py)."""
PAIRS = at_least(BLOCK_PAIRS, step=BLOCK_PAIRS)
"""Of each process: whole blocks, which the interval draws."""
