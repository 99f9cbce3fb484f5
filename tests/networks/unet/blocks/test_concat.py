"""Where the main path ends and the skip begins."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor

from edadm.networks.build import build_network
from edadm.networks.settings.architecture import Architecture
from edadm.networks.unet.blocks.concat import shortcut_splits

DEEPER = Architecture(
    image_size=16,
    channels=16,
    multipliers=(1, 2, 3),
    blocks_per_level=2,
    attention_resolutions=(8,),
    norm_groups=8,
)


def test_the_cifar_network_has_twelve_split_shortcuts() -> None:
    with torch.device("meta"):
        splits = shortcut_splits(build_network(Architecture()))
    assert len(splits) == 12
    assert list(splits.values()) == [256] * 10 + [128] * 2


@pytest.mark.parametrize("deeper", [False, True])
@torch.no_grad()
def test_the_channels_behind_the_split_are_the_skip_bit_for_bit(
    deeper: bool, float_unet: UNet2DModel, calibration: tuple[Tensor, Tensor]
) -> None:
    unet = build_network(DEEPER).eval() if deeper else float_unet
    splits, pushed, compared, handles = shortcut_splits(unet), [], [], []
    for name, module in unet.named_modules():
        on_the_way_down = name == "conv_in" or name.startswith("down_blocks")
        if on_the_way_down and (
            name == "conv_in" or isinstance(module, ResnetBlock2D | Attention | Downsample2D)
        ):

            def push(
                _: object, __: object, output: Tensor, is_attention: bool = isinstance(module, Attention)
            ) -> None:
                if is_attention:
                    pushed.pop()  # an attention's output takes the place of its res-block's
                pushed.append(output)

            handles.append(module.register_forward_hook(push))
        if name.startswith("up_blocks") and isinstance(module, ResnetBlock2D):

            def compare(
                _: object, inputs: tuple[Tensor, ...], shortcut: str = f"{name}.conv_shortcut"
            ) -> None:
                compared.append(torch.equal(inputs[0][:, splits[shortcut] :], pushed.pop()))

            handles.append(module.register_forward_pre_hook(compare))
    unet(*calibration)
    for handle in handles:
        handle.remove()
    assert len(compared) == len(splits) == (9 if deeper else 4)
    assert all(compared)
    assert not pushed
