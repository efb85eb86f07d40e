"""Networks as users write them: each shrinks as far as its shapes allow, with the certificate."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tdcompress.shrinking.exact import shrink


def zero(layer: nn.Module, units: list[int], axis: int = 0) -> None:
    with torch.no_grad():
        layer.weight.index_fill_(axis, torch.tensor(units), 0.0)
        if layer.bias is not None:
            layer.bias[units] = 0


def certified(shrunk) -> None:
    assert shrunk.report.max_output > 0
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depth = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.project = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.depth(F.hardswish(self.expand(x))))
        gate = F.hardsigmoid(self.up(self.down(F.adaptive_avg_pool2d(x, 1)).relu()))
        return self.project(x * gate)


def test_squeeze_excitation_loses_gate_and_depthwise_channels_with_the_stream():
    model = SqueezeExcite()
    zero(model.expand, [1, 2, 3])
    zero(model.depth, [1, 2, 4])
    zero(model.down, [0])
    shrunk = shrink(model, torch.randn(2, 3, 6, 6))
    certified(shrunk)
    # A dead depthwise unit ends its channel, whatever comes in; 3 is dead at the entrance, and its depthwise bias stays.
    assert shrunk.model.depth.groups == shrunk.model.depth.out_channels == shrunk.model.up.out_channels == 5
    assert shrunk.model.down.out_channels == 3


def test_grouped_convolution_narrows_by_groups_and_equally():
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 18, 3, padding=1, groups=3), nn.Conv2d(18, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x).relu()).relu())

    model = Grouped()
    zero(model.a, [0, 1, 2, 3, 4, 8, 9])  # group 0 whole, one of group 1, two of group 2
    zero(model.b, [0, 1, 2, 3, 4, 5, 6, 12, 13])  # group 0 whole, one of group 1, two of group 2
    shrunk = shrink(model, torch.randn(2, 3, 6, 6))
    certified(shrunk)
    b = shrunk.model.b
    assert (b.groups, b.in_channels, b.out_channels, tuple(b.weight.shape)) == (2, 6, 10, (10, 3, 3, 3))


def test_transposed_convolution_and_upsampling():
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.ConvTranspose2d(3, 6, 2, stride=2)
            self.b, self.c = nn.ConvTranspose2d(6, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.interpolate(self.a(x).relu(), scale_factor=2)
            return self.c(F.interpolate(self.b(x).relu(), scale_factor=2, mode="bilinear"))

    model = Decoder()
    zero(model.a, [0, 5], axis=1)
    zero(model.b, [2], axis=1)
    shrunk = shrink(model, torch.randn(2, 3, 4, 4))
    certified(shrunk)
    assert (shrunk.model.a.out_channels, shrunk.model.b.in_channels, shrunk.model.b.out_channels) == (4, 4, 3)


def test_concatenation_shuffle_and_chunk():
    class Shuffle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([self.a(x), self.b(x)], 1).relu()
            batch, channels, height, width = x.shape
            x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
            left, right = x.chunk(2, 1)
            return self.d(self.c(left) * right)

    model = Shuffle()
    zero(model.a, [0, 3, 4])
    zero(model.b, [0, 3, 5])
    zero(model.c, [0, 1])
    shrunk = shrink(model, torch.randn(2, 3, 4, 4))
    certified(shrunk)
    # Shuffled order a0 b0 a1 b1 a2 b2 | a3 b3 ...: the columns 0 and 3 go, one pair from each half.
    assert (shrunk.model.a.out_channels, shrunk.model.b.out_channels, shrunk.model.d.in_channels) == (4, 4, 4)


def test_group_norm_loses_whole_groups_and_layer_norm_keeps_all(settle):
    class Norms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(3, 8, 1), nn.GroupNorm(4, 8), nn.Conv2d(8, 6, 1)
            self.layer, self.c, self.d = nn.LayerNorm(6), nn.Linear(6, 7), nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.b(self.norm(self.a(x)).relu()).permute(0, 2, 3, 1)
            return self.d(F.gelu(self.c(self.layer(x))))

    model = settle(Norms())
    zero(model.a, [2, 3, 4])
    with torch.no_grad():
        model.norm.bias[[2, 3]] = 0
    zero(model.b, [0])
    zero(model.c, [1, 2])
    shrunk = shrink(model, torch.randn(2, 3, 4, 4))
    certified(shrunk)
    assert (shrunk.model.a.out_channels, shrunk.model.norm.num_groups, shrunk.model.norm.num_channels) == (6, 3, 6)
    assert (shrunk.model.b.out_channels, shrunk.model.d.in_features) == (6, 5)
    kept = next(item for item in shrunk.report.layers if item.name == "b")
    assert "normalises all channels together" in kept.reasons[0][0]


class Attention(nn.Module):
    """Self-attention as users write it, with the number of heads following from the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 3 * 4 * 5), nn.Linear(20, 8)
        self.scale = 5**-0.5

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, 5)).permute(2, 0, 3, 1, 4)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def test_attention_written_by_hand_loses_whole_heads():
    model = Attention()
    zero(model.qkv, [part * 20 + head * 5 + i for part in range(3) for head in (0, 2) for i in range(5)])
    zero(model.qkv, [6, 13])
    shrunk = shrink(model, torch.randn(2, 7, 8))
    certified(shrunk)
    assert (shrunk.model.qkv.out_features, shrunk.model.out.in_features) == (30, 10)


def test_a_constant_of_masked_attention_stays_unless_it_is_0():
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(4, 4) for _ in range(4))

        def forward(self, x: Tensor, seen: Tensor) -> Tensor:
            return self.out(F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), attn_mask=seen))

    model, x, seen = Masked().eval(), torch.randn(2, 5, 4), torch.ones(5, 5, dtype=torch.bool)
    zero(model.v, [0])
    with torch.no_grad():
        model.v.weight[1] = 0  # what is left is its bias
    shrunk = shrink(model, (x, seen))
    certified(shrunk)
    assert shrunk.model.v.out_features == 3
    seen[2] = False  # a token that sees nothing gets 0, not the bias
    torch.testing.assert_close(shrunk.model(x, seen), model(x, seen), rtol=1e-5, atol=1e-6)


def test_multi_head_attention_gets_a_narrow_stand_in_only_where_heads_go():
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.TransformerEncoderLayer(8, 4, 12, batch_first=True, dropout=0.0) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    model = Encoder()
    with torch.no_grad():
        attention = model.layers[0].self_attn
        for part in range(3):
            attention.in_proj_weight[part * 8 + 2 : part * 8 + 4] = 0
    zero(model.layers[1].linear1, [0, 1])
    x = torch.randn(2, 5, 8)
    shrunk = shrink(model, x)
    certified(shrunk)
    assert type(shrunk.model.layers[0].self_attn).__name__ == "NarrowAttention"
    assert type(shrunk.model.layers[1].self_attn) is nn.MultiheadAttention
    assert shrunk.model.layers[0].self_attn.num_heads == 3
    assert shrunk.model.layers[1].linear1.out_features == 10
    with torch.no_grad():
        torch.testing.assert_close(shrunk.model.eval()(x), model.eval()(x), rtol=1e-4, atol=1e-5)


def test_the_stand_in_equals_multi_head_attention_with_masks_and_weights():
    from tdcompress.shrinking.attention import NarrowAttention

    full = nn.MultiheadAttention(8, 4, batch_first=False).eval()
    nn.init.normal_(full.in_proj_bias)
    narrow = NarrowAttention(full)
    x, y = torch.randn(5, 2, 8), torch.randn(6, 2, 8)
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    for args in (
        {"query": x, "key": x, "value": x, "attn_mask": torch.triu(torch.full((5, 5), float("-inf")), 1)},
        {"query": x, "key": y, "value": y, "key_padding_mask": padding},
        {"query": x, "key": y, "value": y, "average_attn_weights": False, "attn_mask": torch.randn(8, 5, 6)},
        {"query": x[:, 0], "key": y[:, 0], "value": y[:, 0], "need_weights": False},
    ):
        expected, actual = full(**args), narrow(**args)
        torch.testing.assert_close(actual[0], expected[0], rtol=1e-5, atol=1e-6)
        assert (actual[1] is None) == (expected[1] is None)
        if expected[1] is not None:
            torch.testing.assert_close(actual[1], expected[1], rtol=1e-5, atol=1e-6)


def test_in_place_writes_into_views_and_raw_parameters():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)
            self.scale, self.shift = nn.Parameter(torch.ones(6, 1, 1)), nn.Parameter(torch.zeros(1, 6, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            x *= self.scale
            x.relu_()
            x += self.shift
            x[:, :, 0] = 0
            return self.b(x)

    model = Scaled()
    zero(model.a, [0, 1])
    shrunk = shrink(model, torch.randn(2, 3, 4, 4))
    certified(shrunk)


def test_a_head_that_only_training_has_goes_on_fitting_what_it_reads():
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 1)
            self.head, self.aux = nn.Linear(5, 2), nn.Sequential(nn.Conv2d(6, 4, 1), nn.Flatten(), nn.Linear(64, 2))

        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            x = self.a(x).relu()
            logits = self.head(self.b(x).mean((2, 3)))
            return (logits, self.aux(x)) if self.training else logits

    model = Auxiliary()
    zero(model.a, [0, 3])
    zero(model.aux[0], [1])
    x = torch.randn(2, 3, 4, 4)
    shrunk = shrink(model, x)
    certified(shrunk)
    assert (shrunk.model.b.in_channels, shrunk.model.aux[0].in_channels, shrunk.model.aux[0].out_channels) == (4, 4, 3)
    expected, found = model.train()(x)[1], shrunk.model.train()(x)[1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_prelu_instance_norm_and_pixel_shuffle():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.act, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8), nn.InstanceNorm2d(8, affine=True)
            self.b, self.shuffle = nn.Conv2d(8, 8, 1), nn.PixelShuffle(2)
            self.c = nn.Conv2d(2, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.shuffle(self.b(self.norm(self.act(self.a(x))))))

    model = Mixed()
    zero(model.a, [0, 3])
    zero(model.b, [1])
    shrunk = shrink(model, torch.randn(2, 3, 4, 4))
    certified(shrunk)
    assert (shrunk.model.a.out_channels, shrunk.model.act.num_parameters, shrunk.model.b.out_channels) == (6, 6, 8)
