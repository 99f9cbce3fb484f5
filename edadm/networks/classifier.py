"""The small CIFAR-10 classifier whose features stand in for InceptionV3 where nothing can be downloaded."""

from __future__ import annotations

from jaxtyping import Float, UInt8
from torch import Tensor, nn

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (ResNet, arXiv 1512.03385)."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = (
            nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            if (in_channels, 1) != (channels, stride)
            else nn.Identity()
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        hidden = self.activation(self.norm1(self.conv1(x)))
        return self.activation(self.norm2(self.conv2(hidden)) + self.shortcut(x))


class CifarClassifier(nn.Module):
    """A residual network for 32x32 images in three stages; its last maps are (n, widths[-1], 8, 8)."""

    def __init__(
        self, widths: tuple[int, int, int] = (32, 64, 128), blocks: int = 2, classes: int = len(CLASSES)
    ):
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        layers: list[nn.Module] = []
        previous = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(BasicBlock(previous, width, 2 if stage > 0 and block == 0 else 1))
                previous = width
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(previous, classes)

    def maps(self, images: UInt8[Tensor, "n 3 32 32"]) -> Float[Tensor, "n c 8 8"]:
        """Feature maps of the last stage, non-negative, from images in [0, 255]."""
        return self.stages(self.stem(images.to(self.stem.weight.dtype) / 127.5 - 1))

    def forward(self, images: UInt8[Tensor, "n 3 32 32"]) -> Float[Tensor, "n classes"]:
        return self.head(self.maps(images).mean(dim=(2, 3)))
