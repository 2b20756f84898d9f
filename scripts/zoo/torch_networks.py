"""Small networks of every kind in PyTorch: each function gives a module and example inputs.

`edgepack convert scripts/zoo/torch_networks.py:unet` takes one as it is.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY = 50

Made = tuple[nn.Module, tuple[Tensor, ...]]


class First(nn.Module):
    """The first output of a network that gives a dictionary."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Give the map of classes."""
        first: Tensor = self.net(x)["out"]
        return first


def first_output(net: nn.Module) -> nn.Module:
    """Wrap a segmentation network, which gives a dictionary."""
    return First(net)


class Recurrent(nn.Module):
    """A recurrent network, its last step classified."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(width, 5)

    def forward(self, frames: Tensor) -> Tensor:
        """Classify frames (batch, time, features)."""
        steps, _ = self.layer(frames)
        logits: Tensor = self.head(steps[:, -1])
        return logits


def lstm() -> Made:
    """Two LSTM layers."""
    return Recurrent(nn.LSTM(6, 16, 2, batch_first=True), 16), (torch.rand(1, 24, 6),)


def gru() -> Made:
    """A GRU."""
    return Recurrent(nn.GRU(6, 16, batch_first=True), 16), (torch.rand(1, 24, 6),)


def bidirectional() -> Made:
    """Both directions of an LSTM."""
    layer = nn.LSTM(8, 10, batch_first=True, bidirectional=True)
    return Recurrent(layer, 20), (torch.rand(1, 20, 8),)


class Stateful(nn.Module):
    """One step of an LSTM whose states go in and come out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, frame: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give the scores and the next states."""
        steps, (next_h, next_c) = self.layer(frame, (h, c))
        return self.head(steps[:, -1]), next_h, next_c


def stateful_lstm() -> Made:
    """An LSTM with states as inputs and outputs."""
    return Stateful(), (torch.rand(1, 4, 8), torch.zeros(1, 1, 16), torch.zeros(1, 1, 16))


class Encoder(nn.Module):
    """A transformer encoder over token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 32)
        self.places = nn.Parameter(torch.randn(12, 32) * 0.1)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, ids: Tensor) -> Tensor:
        """Classify ids (batch, words)."""
        x = self.blocks(self.words(ids) + self.places)
        logits: Tensor = self.head(x.mean(dim=1))
        return logits


def transformer() -> Made:
    """A transformer encoder of two blocks."""
    return Encoder(), (torch.randint(0, VOCABULARY, (1, 12)),)


def block(inputs: int, outputs: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Give a convolution with normalization."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """U-Net of two levels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.deep = block(3, 8), block(8, 16), block(16, 32)
        self.up = nn.ConvTranspose2d(32, 16, 2, 2)
        self.third, self.fourth = block(32, 16), block(24, 8)
        self.mask = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Give the mask of a picture."""
        first = self.first(x)
        second = self.second(functional.max_pool2d(first, 2))
        deep = self.up(self.deep(functional.max_pool2d(second, 2)))
        third = self.third(torch.cat([deep, second], 1))
        wide = functional.interpolate(third, scale_factor=2.0, mode="bilinear", align_corners=False)
        return torch.sigmoid(self.mask(self.fourth(torch.cat([wide, first], 1))))


def unet() -> Made:
    """U-Net with a transposed convolution and an upsampling."""
    return UNet(), (torch.rand(1, 3, 32, 32),)


class Detector(nn.Module):
    """A backbone with boxes and scores from two feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 8, stride=2), block(8, 16, stride=2), block(16, 24))
        self.coarse = block(24, 32, stride=2)
        self.boxes = nn.ModuleList([nn.Conv2d(24, 12, 3, 1, 1), nn.Conv2d(32, 12, 3, 1, 1)])
        self.scores = nn.ModuleList([nn.Conv2d(24, 18, 3, 1, 1), nn.Conv2d(32, 18, 3, 1, 1)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give boxes (batch, anchors, 4) and scores (batch, anchors, 6)."""
        near = self.body(x)
        maps = [near, self.coarse(near)]
        boxes = [flat(head(each), 4) for head, each in zip(self.boxes, maps, strict=True)]
        scores = [flat(head(each), 6) for head, each in zip(self.scores, maps, strict=True)]
        return torch.cat(boxes, 1), torch.cat(scores, 1).sigmoid()


def flat(x: Tensor, last: int) -> Tensor:
    """Give a map's anchors in rows."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, last)


def detector() -> Made:
    """Detector head of SSD's kind."""
    return Detector(), (torch.rand(1, 3, 64, 64),)


def depthwise_separable() -> Made:
    """Depthwise-separable network over a spectrogram."""
    net = nn.Sequential(
        nn.Conv2d(1, 16, (10, 4), 2, (5, 1), bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        *[
            layer
            for _ in range(3)
            for layer in (block(16, 16, groups=16), nn.Conv2d(16, 16, 1), nn.Hardswish())
        ],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 12),
        nn.Softmax(-1),
    )
    return net, (torch.rand(1, 1, 49, 10),)


def convolution_1d() -> Made:
    """Dilated and transposed convolutions over a signal."""
    net = nn.Sequential(
        nn.Conv1d(2, 8, 5, padding=2),
        nn.ELU(),
        nn.Conv1d(8, 8, 3, padding=4, dilation=4),
        nn.Tanh(),
        nn.MaxPool1d(2),
        nn.ConvTranspose1d(8, 6, 4, 2, 1),
        nn.BatchNorm1d(6),
        nn.LeakyReLU(0.1),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    return net, (torch.randn(1, 2, 128),)


def convolution_3d() -> Made:
    """Convolutions over a volume."""
    net = nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1),
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(4, 6, 3),
        nn.ReLU(),
    )
    return net, (torch.rand(1, 2, 8, 12, 12),)


def embeddings() -> Made:
    """Averaged embeddings of ids."""

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(VOCABULARY, 16)
            self.head = nn.Linear(16, 3)

        def forward(self, words: Tensor) -> Tensor:
            shares: Tensor = self.head(self.words(words).mean(1)).softmax(-1)
            return shares

    return Bag(), (torch.randint(0, VOCABULARY, (1, 10)),)


def autoencoder() -> Made:
    """Autoencoder with strided and transposed convolutions."""
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1),
        nn.PReLU(8),
        nn.Conv2d(8, 12, 3, 2, 1),
        nn.SiLU(),
        nn.ConvTranspose2d(12, 8, 3, 2, 1, output_padding=1),
        nn.GELU(),
        nn.ConvTranspose2d(8, 1, 3, 2, 1, output_padding=1),
        nn.Sigmoid(),
    )
    return net, (torch.rand(1, 1, 28, 28),)


class Squeeze(nn.Module):
    """Inverted residual with squeeze-and-excite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = block(3, 16, stride=2), nn.Conv2d(16, 48, 1)
        self.deep = nn.Conv2d(48, 48, 5, padding=2, groups=48)
        self.down, self.up = nn.Conv2d(48, 12, 1), nn.Conv2d(12, 48, 1)
        self.out, self.head = nn.Conv2d(48, 16, 1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a picture."""
        x = self.stem(x)
        y = functional.hardswish(self.deep(functional.hardswish(self.wide(x))))
        gate = functional.relu(self.down(functional.adaptive_avg_pool2d(y, 1)))
        x = x + self.out(y * functional.hardsigmoid(self.up(gate)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def squeeze_excite() -> Made:
    """Squeeze-and-excite with hard swish."""
    return Squeeze(), (torch.rand(1, 3, 32, 32),)


def pixel_shuffle() -> Made:
    """Super-resolution by moving channels into space."""
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 12, 3, padding=1),
        nn.PixelShuffle(2),
    )
    return net, (torch.rand(1, 3, 16, 16),)


class Several(nn.Module):
    """A picture, a vector and a mask in; classes and an embedding out."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.squeeze, self.head = block(3, 8), nn.Linear(13, 6), nn.Linear(6, 4)

    def forward(self, zebra: Tensor, apple: Tensor, mango: Tensor) -> tuple[Tensor, Tensor]:
        """Give classes and a unit vector."""
        pooled = self.body(zebra * mango).amax((2, 3))
        code = torch.tanh(self.squeeze(torch.cat([pooled, apple], 1)))
        return self.head(code), functional.normalize(code, dim=1)


def several_inputs() -> Made:
    """Three inputs, two outputs."""
    return Several(), (torch.rand(1, 3, 16, 16), torch.rand(1, 5), torch.rand(1, 1, 16, 16))


def normalizations() -> Made:
    """Group, instance and layer normalization."""
    net = nn.Sequential(
        nn.ReflectionPad2d(1),
        nn.Conv2d(3, 8, 3),
        nn.GroupNorm(4, 8),
        nn.Mish(),
        nn.InstanceNorm2d(8, affine=True),
        nn.AvgPool2d(2),
        nn.LayerNorm([8, 10, 10]),
        nn.Conv2d(8, 4, 3, dilation=2),
        nn.Softplus(),
    )
    return net, (torch.rand(1, 3, 20, 20),)
