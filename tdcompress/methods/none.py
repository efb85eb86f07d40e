"""No method: the network trains as it is."""

from dataclasses import dataclass
from typing import ClassVar

from tdcompress.methods.base import UntargetedSettings


@dataclass(frozen=True, kw_only=True)
class NoneSettings(UntargetedSettings):
    """``method = "none"``: the baseline of every table. Magnitude ranks what is pruned."""

    name: ClassVar[str] = "none"
