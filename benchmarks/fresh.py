"""What a fresh process of a benchmark prints."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


def printed(command: Sequence[str]) -> str:
    """Standard output of a command; what it says besides goes through, versions and tracebacks.

    Raises:
        SystemExit: it failed, or was ended.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"a measurement failed: {' '.join(command)} ended with {done.returncode}")
    return done.stdout
