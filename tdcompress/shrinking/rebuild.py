"""Build the narrow network again, from the plain one and kept_channels.json."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tdcompress.shrinking.attention import replace
from tdcompress.shrinking.duplicate import duplicate
from tdcompress.shrinking.kept import from_json
from tdcompress.shrinking.surgery import narrowed
from tdcompress.sparsity.units import require_layers, require_module


@torch.inference_mode(mode=False)
def narrow(model: nn.Module, kept: Mapping[str, Any]) -> nn.Module:
    """A narrow copy of a network, ready for ``load_state_dict`` of the shrunk weights.

    Args:
        model: the network as its constructor makes it; not modified. Its weights, narrowed, are those of the copy until
            others are loaded.
        kept: ``Shrunk.kept``, or what was read from kept_channels.json.

    Raises:
        UnsupportedError: a TorchScript program.
        ModelError: no module, a damaged description, or one of another network.
    """
    require_module(model)
    require_layers(model)
    description = from_json(kept)
    model = replace(duplicate(model), description.narrow_attention)
    return narrowed(model, description.cuts, description.new_biases)
