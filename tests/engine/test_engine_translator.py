"""An exported translator in the engine says what it says in onnxruntime: dense and pruned, several sentences with padding."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from translator_export import encoder_and_step

from tdcompress.engine import Session
from tdcompress.models.transformer import Transformer
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.runtime import open_session
from tdcompress.text.search import beam_search, greedy
from tdcompress.text.translator import OnnxDecoder, padded_sources
from tdcompress.text.vocabulary import BEGIN, END

PIECES = 40
TIE = 1e-4
"""Two logits nearer than that may change places."""


def pruned(model: onnx.ModelProto, share: float) -> onnx.ModelProto:
    """Zeros in place of the smallest weights of each layer; the embedding, which is the logits' matrix too, is left."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    read = {name for node in changed.graph.node if node.op_type == "MatMul" for name in node.input}
    for tensor in changed.graph.initializer:
        if tensor.name in read and len(tensor.dims) == 2 and PIECES not in tensor.dims:
            weight = numpy_helper.to_array(tensor).copy()
            weight[np.abs(weight) <= np.quantile(np.abs(weight), share)] = 0
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return changed


@pytest.fixture(scope="module")
def exported() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    torch.manual_seed(0)
    net = Transformer(PIECES, 32, 64, 4, 2, 2, 0.0, True, True, False).eval()
    source = torch.tensor([[4, 5, 6, END, 0, 0], [7, 8, 9, 10, 11, END]])
    return encoder_and_step(net, source, torch.tensor([BEGIN, BEGIN]))


@pytest.fixture(scope="module", params=["dense", "90 % zeros", "packed"])
def files(exported, request) -> list[onnx.ModelProto]:
    if request.param == "dense":
        return list(exported)
    models = [pruned(model, 0.9) for model in exported]
    return models if request.param == "90 % zeros" else [pack_model(model)[0] for model in models]


def decoders(files, isa) -> tuple[OnnxDecoder, OnnxDecoder]:
    sessions = [Session(model.SerializeToString(), 2, isa=isa) for model in files]
    return OnnxDecoder(*sessions), OnnxDecoder(*(open_session(model) for model in files))


SENTENCES = [[4, 5], [6, 7, 8, 9, 10, 11, 12], [13], [14, 15, 16, 4], [30, 31, 32, 33, 34, 35, 36, 37, 38, 39]]


def test_each_step_gives_the_same_logits(files, isa):
    mine, theirs = decoders(files, isa)
    source = padded_sources(SENTENCES)
    states = [decoder.start(source) for decoder in (mine, theirs)]
    tokens = np.full(len(SENTENCES), BEGIN)
    for _ in range(45):
        (got, states[0]), (want, states[1]) = (
            decoder.logits(tokens, state) for decoder, state in zip((mine, theirs), states, strict=True)
        )
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
        tokens = want.argmax(axis=1)


def test_greedy_search_says_the_same(files, isa):
    """But for where two logits tie."""
    mine, theirs = decoders(files, isa)
    for sentences in (SENTENCES, SENTENCES[:1], SENTENCES[1:3]):
        source, limits = padded_sources(sentences), np.array([len(each) + 20 for each in sentences])
        got, want = (greedy(decoder, decoder.start(source), limits) for decoder in (mine, theirs))
        for row, (said, expected) in enumerate(zip(got, want, strict=True)):
            if said != expected:
                assert gap_where_they_part(theirs, source[row : row + 1], said, expected) < TIE


def gap_where_they_part(decoder, source, said, expected) -> float:
    """Between the two best logits after what both say."""
    common = [BEGIN]
    for a, b in zip(said, expected, strict=False):
        if a != b:
            break
        common.append(a)
    state = decoder.start(source)
    for token in common:
        logits, state = decoder.logits(np.array([token]), state)
    second, first = np.sort(logits[0])[-2:]
    return float(first - second)


def test_a_beam_is_rows_that_come_and_go(files):
    mine, theirs = decoders(files, None)
    source, limits = padded_sources(SENTENCES), np.array([len(each) + 5 for each in SENTENCES])
    got, want = (beam_search(decoder, decoder.start(source), limits, size=3) for decoder in (mine, theirs))
    assert sum(a == b for a, b in zip(got, want, strict=True)) >= len(SENTENCES) - 1  # a tie may part one


def test_a_translation_needs_few_plans(files):
    mine, _ = decoders(files, None)
    for sentences in (SENTENCES[:2], SENTENCES[2:], SENTENCES):
        greedy(mine, mine.start(padded_sources(sentences)), np.full(len(sentences), 30), ends=False)
    step = mine._step
    assert step._growing.keys() == {(True, True), (True, False)}
    assert all(step._growing.values())
    assert len(step._programs) == 2  # one without a past and one with it, before a second length was asked for
