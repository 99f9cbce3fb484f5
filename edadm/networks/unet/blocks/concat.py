"""Where, on the channels a decoder block receives, the main path ends and the skip begins."""

from __future__ import annotations

from typing import Any

from diffusers.models.resnet import ResnetBlock2D


def shortcut_splits(unet: Any) -> dict[str, int]:
    """The number of main-path channels before the skip, by the name of each shortcut over a concatenation.

    Found without a forward pass: skips are pushed by the input convolution, every encoder res-block and every
    downsampler, and popped in reverse by the decoder res-blocks (method, 3.6).
    """
    pushed = [unet.conv_in.out_channels]
    for block in unet.down_blocks:
        pushed += [resnet.out_channels for resnet in block.resnets]
        pushed += [downsampler.out_channels for downsampler in block.downsamplers or []]
    splits = {}
    for position, block in enumerate(unet.up_blocks):
        for index, resnet in enumerate(block.resnets):
            assert isinstance(resnet, ResnetBlock2D)
            main = resnet.in_channels - pushed.pop()
            if resnet.conv_shortcut is not None:
                splits[f"up_blocks.{position}.resnets.{index}.conv_shortcut"] = main
    return splits
