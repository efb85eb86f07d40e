"""The Transformer: encoder and decoder of "Attention is all you need" (Vaswani et al. 2017)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tdcompress.models.attention import Attention
from tdcompress.text.vocabulary import PAD


class Residual(nn.Module):
    """A sub-layer with its residual and LayerNorm: after the sum, as in the paper (section 3.1), or before the sub-layer.

    Args:
        width: of the stream.
        dropout: rate of what the sub-layer adds, in training (section 5.4).
        pre_norm: the LayerNorm is before the sub-layer.
    """

    def __init__(self, width: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """The sum of ``x`` (..., width) and ``sublayer(x)``, normalised."""
        if self.pre_norm:
            added: Tensor = self.dropout(sublayer(self.norm(x)))
            return x + added
        normalised: Tensor = self.norm(x + self.dropout(sublayer(x)))
        return normalised


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between, the same at each position (section 3.3).

    Args:
        width: of the stream.
        hidden: units between.
        dropout: share of these that is dropped, 0..1.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        result: Tensor = self.output(self.dropout(self.hidden(x).relu()))
        return result


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward.

    Args:
        width: of the stream.
        hidden: units of the feed-forward part.
        heads: of the attention.
        dropout: share, 0..1.
        pre_norm: normalise before each part instead of after it.
    """

    def __init__(self, width: int, hidden: int, heads: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.attention_sum = Residual(width, dropout, pre_norm)
        self.feed_forward = FeedForward(width, hidden, dropout)
        self.feed_forward_sum = Residual(width, dropout, pre_norm)

    def forward(self, x_BSD: Tensor, mask_B11S: Tensor) -> Tensor:  # noqa: D102
        x_BSD = self.attention_sum(x_BSD, lambda x: self.attention(x, x, mask_B11S))
        result: Tensor = self.feed_forward_sum(x_BSD, self.feed_forward)
        return result


class DecoderLayer(nn.Module):
    """Self-attention to what was said, attention to the source, and feed-forward.

    Args:
        width: of the stream.
        hidden: units of the feed-forward part.
        heads: of each attention.
        dropout: share, 0..1.
        pre_norm: normalise before each part instead of after it.
    """

    def __init__(self, width: int, hidden: int, heads: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.attention_sum = Residual(width, dropout, pre_norm)
        self.cross = Attention(width, heads, dropout)
        self.cross_sum = Residual(width, dropout, pre_norm)
        self.feed_forward = FeedForward(width, hidden, dropout)
        self.feed_forward_sum = Residual(width, dropout, pre_norm)

    def forward(self, x_BTD: Tensor, memory_BSD: Tensor, mask_B11S: Tensor) -> Tensor:
        """All positions at once, each looking back alone.

        Args:
            x_BTD: the positions, (B, T, width).
            memory_BSD: the source, as the encoder left it, (B, S, width).
            mask_B11S: bool (B, 1, 1, S), True where the source is no padding.
        """
        # padding is at the end, where no position that counts looks
        x_BTD = self.attention_sum(x_BTD, lambda x: self.attention(x, x, causal=True))
        return self.after_attention(x_BTD, *self.cross.remember(memory_BSD), mask_B11S)

    def step(
        self, x_B1D: Tensor, past: tuple[Tensor, Tensor], source: tuple[Tensor, Tensor], mask_B11S: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One more position.

        Args:
            x_B1D: the position, (B, 1, width).
            past: keys and values of the positions before it, (B, heads, T, head_size).
            source: keys and values of the source, (B, heads, S, head_size).
            mask_B11S: bool (B, 1, 1, S), True where the source is no padding.

        Returns:
            The position after this layer, and ``past`` with it.
        """
        grown: list[Tensor] = []

        def look_back(x_B1D: Tensor) -> Tensor:
            grown.extend(
                torch.cat([before, now], dim=2) for before, now in zip(past, self.attention.remember(x_B1D), strict=True)
            )
            return self.attention.attend(x_B1D, grown[0], grown[1])

        x_B1D = self.attention_sum(x_B1D, look_back)
        return self.after_attention(x_B1D, *source, mask_B11S), (grown[0], grown[1])

    def after_attention(self, x_BTD: Tensor, keys_BHSd: Tensor, values_BHSd: Tensor, mask_B11S: Tensor) -> Tensor:
        """What follows self-attention.

        Args:
            x_BTD: the positions, (B, T, width).
            keys_BHSd: of the source, (B, heads, S, head_size).
            values_BHSd: of the source, (B, heads, S, head_size).
            mask_B11S: bool (B, 1, 1, S), True where the source is no padding.
        """
        x_BTD = self.cross_sum(x_BTD, lambda x: self.cross.attend(x, keys_BHSd, values_BHSd, mask_B11S))
        result: Tensor = self.feed_forward_sum(x_BTD, self.feed_forward)
        return result


class SinusoidPositions(nn.Module):
    """Sines and cosines of a position (section 3.5): all sines, then all cosines, as the released code has them.

    They are computed where they are needed, so that no sentence is too long and no table is in a file.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        self.register_buffer("rates", rates, persistent=False)
        self.rates: Tensor

    def forward(self, positions_T: Tensor) -> Tensor:
        """(T, width) of T positions, as floating-point numbers."""
        angles = positions_T.to(self.rates.dtype).unsqueeze(1) * self.rates
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Transformer(nn.Module):
    """From source and target tokens to logits of the next target token.

    Prunable are query, key and value of each attention and the feed-forward layers, as in the paper (section 5.4), and with
    ``prune_output`` what follows the heads. Embeddings and logits never are.

    Args:
        vocabulary: number of pieces, the same for both languages.
        width: of the stream.
        hidden: units of a feed-forward layer.
        heads: of each attention.
        encoder_layers: number of them.
        decoder_layers: number of them.
        dropout: rate of sums, embeddings and hidden units.
        pre_norm: LayerNorm before each sub-layer, and one at the end of either stack.
        tied: one matrix for both embeddings and the logits (section 3.4).
        prune_output: the output projection of an attention is prunable too.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        hidden: int,
        heads: int,
        encoder_layers: int,
        decoder_layers: int,
        dropout: float,
        pre_norm: bool,
        tied: bool,
        prune_output: bool,
    ) -> None:
        super().__init__()
        self.source_embedding = nn.Embedding(vocabulary, width, padding_idx=PAD)
        self.target_embedding = None if tied else nn.Embedding(vocabulary, width, padding_idx=PAD)
        self.logits = None if tied else nn.Linear(width, vocabulary, bias=False)
        self.positions = SinusoidPositions(width)
        self.dropout = nn.Dropout(dropout)
        sizes = (width, hidden, heads, dropout, pre_norm)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(decoder_layers))
        self.encoder_norm = nn.LayerNorm(width) if pre_norm else nn.Identity()
        self.decoder_norm = nn.LayerNorm(width) if pre_norm else nn.Identity()
        self.scale = math.sqrt(width)
        outputs = [f"{name}.output" for name, module in self.named_modules() if isinstance(module, Attention)]
        self.unprunable = (*(() if tied else ("logits",)), *(() if prune_output else outputs))
        self._initialise(width)

    def forward(self, source_BS: Tensor, target_BT: Tensor) -> Tensor:
        """Logits (B, T, vocabulary) of what follows each target token.

        Args:
            source_BS: int64 (B, S), the source with its end; 0 is padding.
            target_BT: int64 (B, T), begin and the target; padded at the end.
        """
        mask_B11S = source_mask(source_BS)
        memory_BSD = self.encode(source_BS, mask_B11S)
        x_BTD = self.embed(self.target_embedding or self.source_embedding, target_BT)
        for layer in self.decoder:
            x_BTD = layer(x_BTD, memory_BSD, mask_B11S)
        return self.say(x_BTD)

    @property
    def decoder_layers(self) -> list[DecoderLayer]:
        """The decoder's layers, first to last."""
        return [layer for layer in self.decoder if isinstance(layer, DecoderLayer)]

    def encode(self, source_BS: Tensor, mask_B11S: Tensor) -> Tensor:
        """The memory (B, S, width)."""
        x_BSD = self.embed(self.source_embedding, source_BS)
        for layer in self.encoder:
            x_BSD = layer(x_BSD, mask_B11S)
        result: Tensor = self.encoder_norm(x_BSD)
        return result

    def embed(self, table: nn.Embedding, tokens_BT: Tensor, first: int = 0) -> Tensor:
        """Tokens with their positions.

        Args:
            table: of the tokens' language.
            tokens_BT: int64 (B, T).
            first: the first one's position.
        """
        positions_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device) + first
        embedded: Tensor = self.dropout(table(tokens_BT) * self.scale + self.positions(positions_T))
        return embedded

    def say(self, x_BTD: Tensor) -> Tensor:
        """Logits (B, T, vocabulary) of the decoder's last layer."""
        return nn.functional.linear(self.decoder_norm(x_BTD), self.spoken)

    @property
    def spoken(self) -> Tensor:
        """The matrix (vocabulary, width) that gives the logits."""
        return self.source_embedding.weight if self.logits is None else self.logits.weight

    def _initialise(self, width: int) -> None:
        """Glorot uniform; embeddings of deviation 1/sqrt(width), so that they have deviation 1 where they are scaled."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=width**-0.5)
                with torch.no_grad():
                    module.weight[PAD].zero_()


def source_mask(source_BS: Tensor) -> Tensor:
    """Bool (B, 1, 1, S): True where the source is no padding."""
    return (source_BS != PAD)[:, None, None, :]
