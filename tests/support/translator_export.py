"""A small translator as two ONNX files, as a run has them."""

import torch
from torch import nn

from tdcompress.export.to_onnx import OPSET, _quiet
from tdcompress.models.translator_parts import DecoderStep, Encoder
from tdcompress.onnxfile.strip import strip


def encoder_and_step(net, source, token):
    """ONNX models with free batch, source length and length of the past."""
    batch, length, past = (torch.export.Dim(name, min=1) for name in ("batch", "source", "past"))
    encoder, step = Encoder(net), DecoderStep(net)
    memory = encoder(source)
    said = [torch.randn(len(source), each.shape[1], 3, each.shape[3]) for each in memory.values()]
    on_source, on_past = {0: batch, 2: length}, {0: batch, 2: past}
    tokens = {0: batch, 1: length}
    names = [name.replace("source", "past") for name in memory]
    return (
        _exported(encoder, {"source": source}, [tokens]),
        _exported(
            step,
            {"token": token, "source": source, **memory, **dict(zip(names, said, strict=True))},
            [{0: batch}, tokens, *[on_source] * len(memory), *[on_past] * len(memory)],
        ),
    )


def _exported(module, inputs, axes):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self, *given):
            return tuple(self.module(*given).values())

    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            Flat().eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(module(*inputs.values())),
            dynamic_shapes=(tuple(axes),),
            external_data=False,
            verbose=False,
        )
    return strip(program.model_proto)
