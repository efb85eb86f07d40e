"""A Transformer as two networks for deployment: the encoder, run once a sentence, and one step of the decoder."""

from torch import Tensor, nn

from tdcompress.models.transformer import Transformer, source_mask


class Encoder(nn.Module):
    """Source tokens -> what each decoder layer looks at: keys and values of the source.

    They are the same in each step, so the projections of the memory belong here: a step is then two thirds cheaper.
    """

    def __init__(self, network: Transformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, source: Tensor) -> dict[str, Tensor]:
        """``source_key_i``, ``source_value_i`` (B, heads, S, head_size) of each decoder layer i; ``source`` is int64 (B, S)."""
        memory_BSD = self.network.encode(source, source_mask(source))
        named: dict[str, Tensor] = {}
        for number, layer in enumerate(self.network.decoder_layers):
            named[f"source_key_{number}"], named[f"source_value_{number}"] = layer.cross.remember(memory_BSD)
        return named


class DecoderStep(nn.Module):
    """The last token of each sentence, the source, and what was said before -> logits of the next token, and the new past."""

    def __init__(self, network: Transformer) -> None:
        super().__init__()
        self.network = network

    def empty_past(self, like: Tensor) -> list[Tensor]:
        """The past of sentences of which nothing was said: of each layer key and value (B, heads, 0, head_size).

        Args:
            like: a tensor (B, ...) of the type and on the device that is wanted.
        """
        attentions = [layer.attention for layer in self.network.decoder_layers for _ in ("key", "value")]
        return [like.new_empty(len(like), each.heads, 0, each.head_size) for each in attentions]

    def forward(self, token: Tensor, source: Tensor, *memories: Tensor) -> dict[str, Tensor]:
        """One step.

        The position is the length of the past, so all sentences of a batch are equally far.

        Args:
            token: int64 (B,).
            source: int64 (B, S), as the encoder was given it: its padding is not looked at.
            memories: of each decoder layer the source's key and value, then of each one the past's key and value
                (B, heads, T, head_size), T = 0 in the first step.

        Returns:
            ``logits`` (B, vocabulary), and ``key_i``, ``value_i`` (B, heads, T + 1, head_size) of each layer.
        """
        network, mask_B11S, half = self.network, source_mask(source), len(memories) // 2
        x_B1D = network.embed(network.target_embedding or network.source_embedding, token[:, None], memories[half].shape[2])
        named: dict[str, Tensor] = {}
        for number, layer in enumerate(network.decoder_layers):
            at = 2 * number
            remembered, past = (memories[at], memories[at + 1]), (memories[half + at], memories[half + at + 1])
            x_B1D, grown = layer.step(x_B1D, past, remembered, mask_B11S)
            named[f"key_{number}"], named[f"value_{number}"] = grown
        # not transposed: a file would hold a tied matrix twice, once as embedding
        logits_BV = (network.spoken @ network.decoder_norm(x_B1D)[:, 0].T).T
        return {"logits": logits_BV, **named}
