"""Wait for what another process or a server's clock brings about."""

import time


def until(do, error=AssertionError, seconds=60.0):
    """What ``do`` gives, once it raises no such error any more."""
    end = time.monotonic() + seconds
    while True:
        try:
            return do()
        except error:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
