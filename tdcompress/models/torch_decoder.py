"""A Transformer as a search asks for it (`tdcompress.text.search.Decoder`), in torch, with a cache."""

import torch
from torch import Tensor

from tdcompress.errors import VerificationError
from tdcompress.models.transformer import Transformer
from tdcompress.models.translator_parts import DecoderStep, Encoder
from tdcompress.text.search import Ints, Numbers, Remembered


class TorchDecoder:
    """Continues translations with a network, in the mode it is in.

    Args:
        network: full or shrunk; its parameters' device is where it runs.
    """

    def __init__(self, network: Transformer) -> None:
        self._encoder, self._step = Encoder(network), DecoderStep(network)
        self._device = next(network.parameters()).device

    @torch.inference_mode()
    def start(self, source_NS: Ints) -> Remembered[Tensor]:
        """Read the sources; nothing is said yet."""
        source = torch.from_numpy(source_NS).to(self._device)
        memory = tuple(self._encoder(source).values())
        return Remembered(source=source, memory=memory, past=tuple(self._step.empty_past(memory[0])))

    @torch.inference_mode()
    def step(self, tokens_R: Ints, state: Remembered[Tensor], count: int) -> tuple[Numbers, Ints, Remembered[Tensor]]:
        """See `tdcompress.text.search.Decoder`."""
        tokens = torch.from_numpy(tokens_R).to(self._device)
        logits_RV, *past = self._step(tokens, state.source, *state.memory, *state.past).values()
        best = logits_RV.double().log_softmax(1).topk(min(count, logits_RV.shape[1]), dim=1)
        if not bool(best.values.isfinite().all()):
            raise VerificationError("logits of a translation are not finite")
        following = Remembered(source=state.source, memory=state.memory, past=tuple(past))
        return best.values.cpu().numpy(), best.indices.cpu().numpy(), following

    @torch.inference_mode()
    def select(self, state: Remembered[Tensor], rows: Ints) -> Remembered[Tensor]:
        """See `tdcompress.text.search.Decoder`."""
        index = torch.from_numpy(rows).to(self._device)
        return state.rows(index)
