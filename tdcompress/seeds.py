"""Seeds of independent streams of random numbers, all from the one seed of a run."""

import hashlib


def derived_seed(seed: int, *stream: str | int) -> int:
    """A seed for one named stream of random numbers; streams of one run are independent of each other."""
    text = "/".join(str(part) for part in (seed, *stream))
    # torch's CPU generator uses the low 32 bits, so a mixed hash and not seed + i
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
