"""An exported, packed translator against torch: steps, whole searches, plain text."""

import numpy as np
import pytest
import torch
from translator_export import encoder_and_step

import tdcompress as tdc
from tdcompress.errors import DataError, ModelError
from tdcompress.models.torch_decoder import TorchDecoder
from tdcompress.models.transformer import Transformer
from tdcompress.onnxfile.load import save_model
from tdcompress.onnxfile.optimised import optimised_differently
from tdcompress.onnxfile.pack import pack_model
from tdcompress.text.search import beam_search, greedy
from tdcompress.text.translator import OnnxDecoder, TextTranslator, padded_sources
from tdcompress.text.vocabulary import BEGIN, END, Vocabulary, VocabularySettings, train_vocabulary

pytest.importorskip("sentencepiece")
LINES = [
    f"{who} {does} {where}."
    for who in ("a dog", "the cat", "a man")
    for does in ("runs", "sits")
    for where in ("here", "in the park")
]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = Transformer(40, 32, 64, 4, 1, 1, 0.0, False, True, False).eval()
    tdc.prune(net, fraction=0.8)
    return net


@pytest.fixture(scope="module")
def dense(net):
    source = torch.tensor([[4, 5, 6, END, 0, 0], [7, 8, 9, 10, 11, END]])
    return encoder_and_step(net, source, torch.tensor([BEGIN, BEGIN]))


@pytest.fixture(scope="module")
def files(dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    paths = folder / "encoder.onnx", folder / "decoder_step.onnx"
    for model, path in zip(dense, paths, strict=True):
        save_model(pack_model(model)[0], path)
    return paths


@pytest.fixture(scope="module")
def translator(files):
    vocabulary = Vocabulary(train_vocabulary(LINES, VocabularySettings(size=40)))
    return TextTranslator(decoder=OnnxDecoder(*files), vocabulary=vocabulary, longest=30)


def torch_greedy(net, source, limit):
    """Without a cache: the whole sentence anew for each token."""
    said = [BEGIN]
    while len(said) <= limit:
        token = int(net(torch.from_numpy(source), torch.tensor([said]))[0, -1].argmax())
        if token == END:
            break
        said.append(token)
    return said[1:]


def test_packed_files_are_smaller_and_onnxruntime_runs_the_same_graph(dense):
    for model in dense:
        packed, report = pack_model(model)
        assert report.left_as_is == ""
        assert packed.ByteSize() < 0.6 * model.ByteSize()
        assert optimised_differently(model, packed) == ""


def test_a_tied_matrix_is_in_a_file_once(dense):
    for model in dense:
        assert sum(40 in tensor.dims for tensor in model.graph.initializer) == 1


def test_steps_give_torchs_logits_from_the_first_token_on(net, files):
    decoder = OnnxDecoder(*files)
    source = padded_sources([[4, 5], [6, 7, 8, 9], [10]])
    target = np.array([[BEGIN, 4, 5, 6], [BEGIN, 7, 8, 9], [BEGIN, 10, 11, 12]])
    state = decoder.start(source)
    with torch.no_grad():
        expected = net(torch.from_numpy(source), torch.from_numpy(target)).numpy()
    for place in range(4):
        logits, state = decoder.logits(target[:, place], state)
        assert np.abs(logits - expected[:, place]).max() < 1e-5 * np.abs(expected).max()


def test_greedy_search_says_what_torch_says(net, files):
    decoder = OnnxDecoder(*files)
    sentences = [[4, 5, 6], [30, 31], [12, 13, 14, 15, 16]]
    found = greedy(decoder, decoder.start(padded_sources(sentences)), np.array([6, 6, 6]))
    with torch.no_grad():
        assert found == [torch_greedy(net, padded_sources([sentence]), 6) for sentence in sentences]


def test_both_decoders_find_the_same_beams(net, files):
    exported, own = OnnxDecoder(*files), TorchDecoder(net)
    source = padded_sources([[4, 5, 6], [30, 31], [12, 13, 14, 15, 16]])
    limits = np.array([6, 4, 8])
    assert greedy(own, own.start(source), limits) == greedy(exported, exported.start(source), limits)
    for size in (1, 3):
        found = [beam_search(each, each.start(source), limits, size=size) for each in (own, exported)]
        assert found[0] == found[1]


def test_text_goes_in_and_comes_out_in_its_order(translator):
    several = translator(["a dog runs here.", "", "the cat sits in the park.", "  "], beam=2)
    assert several[1] == several[3] == ""
    assert several[0] == translator([" a  dog runs here. "], beam=2)[0]
    assert all(isinstance(each, str) for each in several)
    assert translator([]) == []
    assert len(translator(["☃ ☃"], beam=1)) == 1


def test_a_sentence_above_the_limit_is_named(translator):
    with pytest.raises(DataError, match=r"sentence 2: \d+ pieces, more than 30: split it"):
        translator(["a dog.", "a dog runs. " * 20])


def test_files_that_are_no_pair_are_refused(files):
    with pytest.raises(ModelError, match="no encoder and decoder step of one translator"):
        OnnxDecoder(files[0], files[0])
