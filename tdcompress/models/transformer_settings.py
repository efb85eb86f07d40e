"""The keys of a Transformer in a recipe."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from tdcompress.models.base import ModelSettings, NetworkInterface, Translations, require_interface
from tdcompress.models.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class TransformerSettings(ModelSettings):
    """The Transformer; the defaults are "Attention is all you need"'s base network (Vaswani et al. 2017, table 3).

    Attributes:
        width: of the stream; even, and ``heads`` divides it.
        hidden: units of a feed-forward layer.
        heads: of each attention.
        encoder_layers: number of them.
        decoder_layers: number of them.
        dropout: rate of sums, embeddings, hidden units and attention weights, in training.
        pre_norm: LayerNorm before each sub-layer instead of after each sum.
        tied: one matrix for both embeddings and the logits.
        prune_output: the output projections of attentions are prunable too; the papers prune query, key and value alone.
    """

    name: ClassVar[str] = "transformer"

    width: int = 512
    hidden: int = 2048
    heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.1
    pre_norm: bool = False
    tied: bool = True
    prune_output: bool = False

    def __post_init__(self) -> None:
        for key in ("width", "hidden", "heads", "encoder_layers", "decoder_layers"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: {getattr(self, key)} is out of range, 1 or more")
        if self.width % 2:
            raise ValueError(f"width: {self.width} is odd; positions are pairs of sine and cosine")
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} do not divide width = {self.width}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout: {self.dropout} is out of range, 0 <= dropout < 1")

    def build(self, interface: NetworkInterface) -> nn.Module:  # noqa: D102
        return Transformer(
            vocabulary=require_interface(self.name, interface, Translations).vocabulary,
            width=self.width,
            hidden=self.hidden,
            heads=self.heads,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            dropout=self.dropout,
            pre_norm=self.pre_norm,
            tied=self.tied,
            prune_output=self.prune_output,
        )
