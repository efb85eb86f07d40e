"""Packing a translator takes none of onnxruntime's fusions: of encoder and decoder step the optimised graphs are compared."""

import pytest
import torch

import tdcompress as tdc
from tdcompress.export.to_onnx import to_model_proto
from tdcompress.models.transformer import Transformer
from tdcompress.models.translator_parts import DecoderStep, Encoder
from tdcompress.onnxfile.optimised import optimised
from tdcompress.onnxfile.pack import pack_model
from tdcompress.text.vocabulary import BEGIN, END, PAD

LAYERS = 2


@pytest.fixture(scope="module", params=[False, True], ids=["post_norm", "pre_norm"])
def parts(request):
    """Encoder and decoder step, as a run exports them, of a pruned translator."""
    torch.manual_seed(0)
    net = Transformer(40, 32, 64, 4, LAYERS, LAYERS, 0.0, request.param, True, False).eval()
    tdc.prune(net, fraction=0.8)
    encoder, step = Encoder(net).eval(), DecoderStep(net).eval()
    source, token = torch.tensor([[4, 5, 6, END], [7, 8, END, PAD]]), torch.full((2,), BEGIN)
    with torch.no_grad():
        memory = encoder(source)
    past = [torch.randn(2, each.shape[1], 3, each.shape[3]) for each in memory.values()]
    names = ("token", "source", *memory, *(name.replace("source", "past") for name in memory))
    tokens, on_source, on_past = {0: "batch", 1: "length"}, {0: "batch", 2: "length"}, {0: "batch", 2: "past"}
    axes = ({0: "batch"}, tokens, *[on_source] * len(memory), *[on_past] * len(memory))
    return {
        "encoder": to_model_proto(encoder, (source,), names=("source",), axes=(tokens,)),
        "step": to_model_proto(step, (token, source, *memory.values(), *past), names=names, axes=axes),
    }


@pytest.mark.parametrize("part", ["encoder", "step"])
def test_packed_files_keep_every_fusion(parts, part):
    dense = parts[part]
    packed, report = pack_model(dense)
    assert report.left_as_is == ""
    assert packed.ByteSize() < 0.6 * dense.ByteSize()
    wanted, given = optimised(dense), optimised(packed)
    assert wanted.operators["SkipLayerNormalization"] > 0
    assert wanted.operators == given.operators
    assert wanted.nodes == given.nodes  # each with what it reads, down to the weights
