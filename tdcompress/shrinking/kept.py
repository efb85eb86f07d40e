"""kept_channels.json: what stays of each tensor, as JSON values."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tdcompress.codec import check_format
from tdcompress.errors import ModelError, one_line
from tdcompress.shrinking.surgery import Cut

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a shrunk network is made of.

    Attributes:
        cuts: tensor name -> what stays of it; tensors that are not named are whole.
        new_biases: biases that the full network does not have; they took constants of removed channels.
        narrow_attention: attention layers in whose place a ``NarrowAttention`` stands.
    """

    cuts: Mapping[str, Cut]
    new_biases: tuple[str, ...] = ()
    narrow_attention: tuple[str, ...] = ()


def to_json(kept: Kept) -> dict[str, Any]:
    """JSON values of a description."""
    tensors = {
        name: {"shape": list(cut.shape), "keep": {str(axis): rows for axis, rows in cut.keep.items()}, "groups": cut.groups}
        for name, cut in kept.cuts.items()
    }
    return {
        "format": FORMAT,
        "tensors": tensors,
        "new_biases": list(kept.new_biases),
        "narrow_attention": list(kept.narrow_attention),
    }


def from_json(values: Mapping[str, Any]) -> Kept:
    """Read a description back, and check it before anything is built from it.

    Raises:
        ModelError: not a description of this format, or indices that do not fit the shapes.
    """
    try:
        check_format(values, "format", FORMAT)
        cuts = {
            str(name): Cut(
                shape=tuple(int(n) for n in item["shape"]),
                keep={int(axis): rows for axis, rows in item["keep"].items()},
                groups=int(item["groups"]),
            )
            for name, item in values["tensors"].items()
        }
        biases, attention = (tuple(str(name) for name in values[key]) for key in ("new_biases", "narrow_attention"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"kept_channels is damaged, or of another version ({one_line(error)})") from error
    for name, cut in cuts.items():
        _check(name, cut)
    return Kept(cuts=cuts, new_biases=biases, narrow_attention=attention)


def _check(name: str, cut: Cut) -> None:
    if cut.groups < 1:
        raise ModelError(f"kept_channels of {name} is damaged: {cut.groups} groups")
    for axis, rows in cut.keep.items():
        lists = rows if rows and isinstance(rows[0], list) else [rows]
        if not 0 <= axis < len(cut.shape) or len({len(row) for row in lists}) != 1:
            raise ModelError(f"kept_channels of {name} is damaged: axis {axis} does not fit shape {cut.shape}")
        for row in lists:
            numbers = [i for i in row if isinstance(i, int) and 0 <= i < cut.shape[axis]]
            if not row or numbers != row or any(a >= b for a, b in itertools.pairwise(numbers)):
                raise ModelError(f"kept_channels of {name} is damaged: the indices of axis {axis} do not fit shape {cut.shape}")
