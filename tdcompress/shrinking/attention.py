"""A narrow stand-in for nn.MultiheadAttention, whose own forward insists on as many head channels as the stream has."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tdcompress.errors import ModelError


class NarrowAttention(nn.Module):
    """Multi-head attention with any number of heads, with the parameters and the call of nn.MultiheadAttention.

    The number of heads follows from the weights: ``in_proj_weight`` is (3 * heads * head_dim, embed_dim). Where query, key
    and value are the same tensor (self-attention) they are projected in one product, as the channel graph can follow.
    """

    # nn.TransformerEncoderLayer asks for this before it takes a fused path that knows no narrow heads.
    _qkv_same_embed_dim = False

    def __init__(self, full: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.head_dim = full.embed_dim, full.head_dim
        self.dropout, self.batch_first = full.dropout, full.batch_first
        self.in_proj_weight, self.in_proj_bias = full.in_proj_weight, full.in_proj_bias
        self.out_proj = full.out_proj
        self.train(full.training)

    @property
    def num_heads(self) -> int:
        """Heads that are there."""
        heads: int = self.in_proj_weight.shape[0] // (3 * self.head_dim)
        return heads

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention`: (L, B, E) or, with ``batch_first``, (B, L, E); without a batch (L, E)."""
        batched = query.dim() == 3
        inputs = [query, key, value] if not (query is key and key is value) else [query]
        if not batched:
            inputs = [item.unsqueeze(0) for item in inputs]
        elif not self.batch_first:
            inputs = [item.transpose(0, 1) for item in inputs]
        q, k, v = (torch.unflatten(part, -1, (-1, self.head_dim)).transpose(1, 2) for part in self._project(inputs))
        mask = _additive_mask(attn_mask, key_padding_mask, q, k)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * (1 / math.sqrt(self.head_dim))) @ k.transpose(-2, -1)
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            weights = F.dropout(weights, dropout)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        result = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if not batched:
            return result.squeeze(0), weights
        return result if self.batch_first else result.transpose(0, 1), weights

    def _project(self, inputs: list[Tensor]) -> Iterable[Tensor]:
        if len(inputs) == 1:
            return F.linear(inputs[0], self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        biases = self.in_proj_bias.chunk(3) if self.in_proj_bias is not None else (None, None, None)
        return [F.linear(x, w, b) for x, w, b in zip(inputs, self.in_proj_weight.chunk(3), biases, strict=True)]


def _additive_mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
    """Both masks as one number to add to the scores, broadcastable to (B, heads, L, S)."""
    mask = None
    if attn_mask is not None:
        mask = _as_numbers(attn_mask, q.dtype)
        if mask.dim() == 3:  # (B * heads, L, S)
            mask = torch.unflatten(mask, 0, (q.shape[0], -1))
    if key_padding_mask is not None:
        padding = _as_numbers(key_padding_mask, q.dtype).reshape(-1, 1, 1, k.shape[2])
        mask = padding if mask is None else mask + padding
    return mask


def _as_numbers(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -math.inf)


def replaceable(model: nn.Module) -> tuple[str, ...]:
    """Names of the attention layers that a narrow one can stand in for: one joint projection, no extra key or value tokens."""
    return tuple(
        name
        for name, module in model.named_modules()
        if type(module) is nn.MultiheadAttention
        and module.in_proj_weight is not None
        and module.bias_k is None
        and not module.add_zero_attn
    )


def replace(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Put narrow attention layers in the place of the named ones, in place; returns the model (itself replaced, if "" is named).

    One that stands under several names is replaced under all of them.

    Raises:
        ModelError: a name that is no nn.MultiheadAttention.
    """
    for name in names:
        full = dict(model.named_modules()).get(name)
        if type(full) is not nn.MultiheadAttention:
            raise ModelError(f"kept_channels narrows the attention layer {name!r}, but here it is a {type(full).__name__}")
        narrow = NarrowAttention(full)
        if not name:
            return narrow
        for module in list(model.modules()):
            for attribute in [key for key, child in module._modules.items() if child is full]:
                setattr(module, attribute, narrow)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(isinstance(part, NarrowAttention) for part in module.modules()):
            module.use_nested_tensor = False  # a nested tensor has no heads to tell apart
    return model
