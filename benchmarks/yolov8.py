"""YOLOv8's public architecture with random weights: blocks of convolutions, C2f, SPPF, a neck of two ways, decoupled heads.

By default "n" with 80 classes: 3,157,200 parameters, as published. The forward pass gives boxes and scores, as exported.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

BINS = 16  # of the distribution over a side's distance


class Conv(nn.Module):
    """Convolution, BatchNorm, SiLU."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2, bias=False)
        self.bn = nn.BatchNorm2d(c2, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H/s, W/s)."""
        return nn.functional.silu(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Two convolutions, with or without a shortcut."""

    def __init__(self, c: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.add = Conv(c, c, 3), Conv(c, c, 3), shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Of one shape (B, c, H, W)."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C2f(nn.Module):
    """A chunk of two halves, ``n`` bottlenecks behind the second, and all of it joined."""

    def __init__(self, c1: int, c2: int, n: int, shortcut: bool = False) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c2), Conv((2 + n) * (c2 // 2), c2)
        self.m = nn.ModuleList(Bottleneck(c2 // 2, shortcut) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H, W)."""
        y = list(self.cv1(x).chunk(2, 1))
        for block in self.m:
            y.append(block(y[-1]))
        return self.cv2(torch.cat(y, 1))


class SPPF(nn.Module):
    """Three poolings one after the other, joined with their input."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.cv2, self.pool = Conv(c, c // 2), Conv(2 * c, c), nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Of one shape (B, c, H, W)."""
        y = [self.cv1(x)]
        for _ in range(3):
            y.append(self.pool(y[-1]))
        return self.cv2(torch.cat(y, 1))


class Detect(nn.Module):
    """For each level a branch of boxes (distributions over distances, read by a softmax) and one of classes."""

    def __init__(self, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.classes = classes
        boxes, scores = max(16, widths[0] // 4, 4 * BINS), max(widths[0], min(classes, 100))
        self.cv2 = nn.ModuleList(
            nn.Sequential(Conv(c, boxes, 3), Conv(boxes, boxes, 3), nn.Conv2d(boxes, 4 * BINS, 1)) for c in widths
        )
        self.cv3 = nn.ModuleList(
            nn.Sequential(Conv(c, scores, 3), Conv(scores, scores, 3), nn.Conv2d(scores, classes, 1)) for c in widths
        )
        self.dfl = nn.Conv2d(BINS, 1, 1, bias=False).requires_grad_(False)
        self.dfl.weight.data = torch.arange(BINS, dtype=torch.float32).view(1, BINS, 1, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, H, W) of strides 8, 16, ... -> (B, 4 + classes, places): centre, size, scores."""
        batch, anchors, strides = levels[0].shape[0], [], []
        for level, x in enumerate(levels):
            h, w = x.shape[2:]
            columns, rows = torch.arange(w, device=x.device) + 0.5, torch.arange(h, device=x.device) + 0.5
            grid = torch.meshgrid(rows, columns, indexing="ij")
            anchors.append(torch.stack((grid[1], grid[0]), -1).view(-1, 2))
            strides.append(torch.full((h * w, 1), 8.0 * 2**level, device=x.device))
        joined = [torch.cat((box(x), score(x)), 1) for x, box, score in zip(levels, self.cv2, self.cv3, strict=True)]
        flat = torch.cat([x.view(batch, 4 * BINS + self.classes, -1) for x in joined], 2)
        box, score = flat.split((4 * BINS, self.classes), 1)
        places = box.view(batch, 4, BINS, -1).transpose(2, 1).softmax(1)
        near, far = self.dfl(places).view(batch, 4, -1).chunk(2, 1)
        points, stride = torch.cat(anchors).transpose(0, 1).type_as(near), torch.cat(strides).transpose(0, 1).type_as(near)
        first, last = points - near, points + far
        return torch.cat((torch.cat(((first + last) / 2, last - first), 1) * stride, score.sigmoid()), 1)


class YoloV8(nn.Module):
    """Backbone, neck and heads.

    Args:
        widths: of the five stages.
        depths: of the blocks of the last four; those of the neck have the first of them.
        classes: that are told apart.
    """

    def __init__(
        self, widths: Sequence[int] = (16, 32, 64, 128, 256), depths: Sequence[int] = (1, 2, 2, 1), classes: int = 80
    ) -> None:
        super().__init__()
        a, b, c, d, e = widths
        self.stem = Conv(3, a, 3, 2)
        ins = (a, b, c, d)
        self.down = nn.ModuleList(Conv(before, after, 3, 2) for before, after in zip(ins, widths[1:], strict=True))
        self.blocks = nn.ModuleList(C2f(after, after, n, shortcut=True) for after, n in zip(widths[1:], depths, strict=True))
        self.sppf = SPPF(e)
        self.up = nn.Upsample(scale_factor=2)
        self.n1, self.n2 = C2f(d + e, d, depths[0]), C2f(c + d, c, depths[0])
        self.d1, self.n3 = Conv(c, c, 3, 2), C2f(c + d, d, depths[0])
        self.d2, self.n4 = Conv(d, d, 3, 2), C2f(d + e, e, depths[0])
        self.detect = Detect(classes, (c, d, e))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W), sides divisible by 32 -> (B, 4 + classes, places)."""
        levels = []
        x = self.stem(x)
        for down, block in zip(self.down, self.blocks, strict=True):
            x = block(down(x))
            levels.append(x)
        _, p3, p4, _ = levels
        p5 = self.sppf(x)
        m4 = self.n1(torch.cat((self.up(p5), p4), 1))
        o3 = self.n2(torch.cat((self.up(m4), p3), 1))
        o4 = self.n3(torch.cat((self.d1(o3), m4), 1))
        o5 = self.n4(torch.cat((self.d2(o4), p5), 1))
        return self.detect((o3, o4, o5))
