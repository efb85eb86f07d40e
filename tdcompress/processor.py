"""The processor at hand: its name, its instruction sets, and what these mean for 8-bit sums. What cannot be read is unknown."""

import platform
from dataclasses import dataclass
from pathlib import Path

from tdcompress.limits import UNKNOWN, read_fact

_X86 = frozenset({"x86_64", "amd64", "i386", "i686", "x86"})


@dataclass(frozen=True, kw_only=True)
class Processor:
    """One processor.

    Attributes:
        name: its model, or "unknown".
        machine: the architecture as Python names it, in small letters: "x86_64", "aarch64", "arm64", "amd64".
        flags: every flag that the kernel reports, sorted; empty where the system has no /proc/cpuinfo.
    """

    name: str
    machine: str
    flags: tuple[str, ...]

    @property
    def is_x86(self) -> bool:
        """Whether it is Intel's or AMD's architecture."""
        return self.machine in _X86

    @property
    def saturates(self) -> bool | None:
        """Whether sums of two 8-bit products are cut to 16 bits; None where the flags are not known.

        x86 multiplies uint8 by int8 with ``vpmaddubsw``, which cuts each sum of two products to int16. VNNI's ``vpdpbusd`` adds
        in 32 bits, and so do ARM's instructions.
        """
        if not self.is_x86:
            return False
        return not any(flag.endswith("_vnni") for flag in self.flags) if self.flags else None


def read_processor(root: Path = Path("/")) -> Processor:
    """The processor of this machine.

    Args:
        root: where /proc hangs (another folder in tests).
    """
    fields: dict[str, str] = {}
    for line in (read_fact(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    words = (fields.get("flags") or fields.get("features") or "").split()
    # Arm's cpuinfo has no model name, only the part number.
    part = " ".join(fields[key] for key in ("cpu implementer", "cpu part") if key in fields)
    name = fields.get("model name") or part or platform.processor() or UNKNOWN
    return Processor(name=name, machine=platform.machine().lower(), flags=tuple(sorted(set(words))))
