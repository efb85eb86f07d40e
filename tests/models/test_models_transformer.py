import pytest
import torch

import tdcompress as tdc
from tdcompress.models.transformer import Transformer
from tdcompress.models.translator_parts import DecoderStep, Encoder
from tdcompress.sparsity.units import prunable_weights
from tdcompress.text.vocabulary import BEGIN, END, PAD

SMALL = {
    "vocabulary": 13,
    "width": 16,
    "hidden": 24,
    "heads": 4,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "dropout": 0.1,
    "pre_norm": False,
    "tied": True,
    "prune_output": False,
}


def network(**changed):
    torch.manual_seed(0)
    return Transformer(**{**SMALL, **changed}).eval()


def tokens(*shape, seed=0):
    return torch.randint(END + 1, SMALL["vocabulary"], shape, generator=torch.Generator().manual_seed(seed))


def prune_units(net, examples, fraction):
    """Hidden units and heads; what writes into the stream stays, since LayerNorm reads all of it."""
    with pytest.warns(UserWarning, match=r"4 layers left whole.*feed_forward\.output.*normalises"):
        tdc.prune(net, granularity="unit", fraction=fraction, example_inputs=examples, scope="group")


@pytest.fixture
def pair():
    source, target = tokens(3, 7), tokens(3, 5, seed=1)
    source[0, 4:] = PAD
    target[:, 0] = BEGIN
    return source, target


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_steps_say_what_the_whole_target_says_at_once(pair, pre_norm, tied):
    source, target = pair
    whole = network(pre_norm=pre_norm, tied=tied).double()
    expected = whole(source, target)
    encoder, step = Encoder(whole), DecoderStep(whole)
    remembered = tuple(encoder(source).values())
    past = step.empty_past(remembered[0])
    for place in range(target.shape[1]):
        logits, *past = step(target[:, place], source, *remembered, *past).values()
        assert torch.allclose(logits, expected[:, place], rtol=0, atol=1e-12)


def test_padding_and_what_is_said_later_change_nothing(pair):
    source, target = pair
    net = network().double()
    logits = net(source, target)
    short = net(source[:1, :4], target[:1, :3])
    assert torch.allclose(logits[:1, :3], short, rtol=0, atol=1e-12)


def test_words_are_told_apart_by_their_order(pair):
    source, target = pair
    net = network().double()
    assert not torch.allclose(net(source, target)[1], net(source.flip(1), target)[1], atol=1e-3)


def test_the_papers_base_has_the_papers_size():
    with torch.device("meta"):
        net = Transformer(37000, 512, 2048, 8, 6, 6, 0.1, False, True, False)
    assert sum(p.numel() for p in net.parameters()) == 63_082_496  # the paper rounds to 65 million


def test_only_queries_keys_values_and_feed_forward_layers_are_pruned():
    names = {slot.parameter for slot in prunable_weights(network())}
    per_layer = {f"attention.{part}.weight" for part in ("query", "key", "value")} | {
        "feed_forward.hidden.weight",
        "feed_forward.output.weight",
    }
    cross = {f"cross.{part}.weight" for part in ("query", "key", "value")}
    assert names == {f"encoder.{layer}.{part}" for layer in (0, 1) for part in per_layer} | {
        f"decoder.{layer}.{part}" for layer in (0, 1) for part in per_layer | cross
    }
    own = {slot.parameter for slot in prunable_weights(network(tied=False, prune_output=True))}
    assert own == names | {
        f"{stack}.{layer}.{part}.output.weight"
        for stack, parts in (("encoder", ("attention",)), ("decoder", ("attention", "cross")))
        for layer in (0, 1)
        for part in parts
    }


@pytest.mark.parametrize("pre_norm", [False, True])
def test_hidden_units_and_whole_heads_leave_exactly(pair, pre_norm):
    net = network(pre_norm=pre_norm)
    source, target = (torch.where(each == PAD, END, each) for each in pair)
    prune_units(net, (source, target), 0.5)
    shrunk = tdc.shrink(net, (source, target))  # certified in float64
    narrow = shrunk.model
    for layer in (*narrow.encoder, *narrow.decoder):
        assert layer.feed_forward.hidden.weight.shape == (12, 16)
        assert layer.feed_forward.output.weight.shape == (16, 12)
        for attention in (layer.attention, *([layer.cross] if hasattr(layer, "cross") else [])):
            for part in (attention.query, attention.key, attention.value):
                assert part.weight.shape == (8, 16)
            assert attention.output.weight.shape == (16, 8)
    again = tdc.narrow(network(pre_norm=pre_norm), shrunk.kept)
    again.load_state_dict(narrow.state_dict())
    assert torch.equal(again(source, target), narrow(source, target))
    assert torch.allclose(narrow(*pair), net(*pair), atol=1e-5)


def test_a_narrow_network_steps_as_a_full_one_does(pair):
    source, target = pair
    net = network().double()
    examples = tuple(torch.where(each == PAD, END, each) for each in pair)
    prune_units(net, examples, 0.25)
    narrow = tdc.shrink(net, examples).model
    remembered = Encoder(narrow)(source)
    assert remembered["source_key_0"].shape[1] == 3
    past = DecoderStep(narrow).empty_past(remembered["source_key_0"])
    for place in range(3):
        logits, *past = DecoderStep(narrow)(target[:, place], source, *remembered.values(), *past).values()
        assert torch.allclose(logits, net(source, target)[:, place], rtol=0, atol=1e-12)
