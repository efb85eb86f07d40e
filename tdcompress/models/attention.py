"""Multi-head attention with separate projections, whose number of heads follows from its weights."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """softmax(q k^T / sqrt(head_size)) v in every head ("Attention is all you need", section 3.2).

    Query, key and value are separate linear layers, so that each head's projections are pruned like any filters. The number of
    heads is read from their widths: a network that lost heads runs as it is.

    Args:
        width: of the stream.
        heads: number of heads; it divides the width.
        dropout: rate of the attention weights, in training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.head_size, self.dropout = width // heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    @property
    def heads(self) -> int:
        """Heads that are there."""
        return self.key.weight.shape[0] // self.head_size

    def forward(self, x_BTD: Tensor, memory_BSD: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """What each position of ``x_BTD`` gathers from ``memory_BSD``.

        Args:
            x_BTD: who asks, float (B, T, width).
            memory_BSD: who is asked, float (B, S, width).
            mask: bool, broadcastable to (B, heads, T, S); True = may be looked at.
            causal: position t looks at the positions up to t alone.
        """
        return self.attend(x_BTD, *self.remember(memory_BSD), mask, causal=causal)

    def remember(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, S, head_size)."""
        return self._split(self.key(memory_BSD)), self._split(self.value(memory_BSD))

    def attend(
        self, x_BTD: Tensor, keys_BHSd: Tensor, values_BHSd: Tensor, mask: Tensor | None = None, *, causal: bool = False
    ) -> Tensor:
        """As ``forward``, with keys and values that are there already.

        Args:
            x_BTD: who asks, float (B, T, width).
            keys_BHSd: as ``remember`` gives them, (B, heads, S, head_size).
            values_BHSd: likewise.
            mask: bool, broadcastable to (B, heads, T, S); True = may be looked at.
            causal: position t looks at the positions up to t alone.
        """
        mixed_BHTd = F.scaled_dot_product_attention(
            self._split(self.query(x_BTD)),
            keys_BHSd,
            values_BHSd,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
        )
        result: Tensor = self.output(mixed_BHTd.transpose(1, 2).flatten(2))
        return result

    def _split(self, x_BTD: Tensor) -> Tensor:
        return torch.unflatten(x_BTD, 2, (-1, self.head_size)).transpose(1, 2)
