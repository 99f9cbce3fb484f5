#!/usr/bin/env bash
# FINDING: three settings of diffusers' U-Nets act in some kinds of blocks only, and are taken without a word in all others: resnet_out_scale_factor
#   does nothing in the usual blocks of UNet2DConditionModel, downsample_type and upsample_type nothing at levels of UNet2DModel without attention.
# Seen with: diffusers==0.42.1, torch==2.13.0, numpy==2.4.6 (Python 3.11, x86-64), 2026-11-30.
# Guess before running: resnet_out_scale_factor divides the output of every residual block, as mid_block_scale_factor does in the middle;
#   downsample_type="resnet" gives every level a residual block that halves the image.
# Seen: the prediction of the same weights, with a factor of 2 in place of 1:
#     resnet_out_scale_factor in CrossAttn/Down/UpBlock2D: changed by 0.000 of its spread; mid_block_scale_factor: 0.206
#     resnet_out_scale_factor with one ResnetDownsampleBlock2D and ResnetUpsampleBlock2D: 0.322
#     downsample_type="resnet": Downsample2D (a convolution) at a DownBlock2D, ResnetBlock2D at an AttnDownBlock2D; the same for upsample_type
# Matters because: whoever translates a checkpoint of another code to diffusers by setting these keys gets another network, with weights that may
#   even fit (LDM's res-block up- and downsampling needs ResnetDownsampleBlock2D by name), and whoever reads a config.json to build the network
#   elsewhere must leave the factor out. edadm names these blocks in its ldm family, and lets diffusers build what a config.json says.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6" "diffusers==0.42.1"
"$folder/venv/bin/python" - <<'PY'
import torch
from diffusers import UNet2DConditionModel, UNet2DModel

SIZES = {"sample_size": 16, "block_out_channels": (32, 32), "layers_per_block": 1, "norm_num_groups": 8}
LATENTS = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
CONTEXT = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(1))
USUAL = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
RARE = {
    "down_block_types": ("CrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
    "up_block_types": ("ResnetUpsampleBlock2D", "CrossAttnUpBlock2D"),
}


@torch.no_grad()
def change(blocks: dict, **setting: float) -> float:
    """By how much of its spread the prediction of the same weights changes with a setting."""
    found = []
    for given in ({}, setting):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**SIZES, **blocks, cross_attention_dim=16, attention_head_dim=8, **given)
        found.append(unet.eval()(LATENTS, 10, CONTEXT).sample)
    return ((found[0] - found[1]).std() / found[0].std()).item()


def samplers(down: str, up: str) -> tuple[str, str]:
    """What halves the image at the first level, and what doubles it there, of a U-Net that is told to do both by residual blocks."""
    unet = UNet2DModel(
        **SIZES,
        in_channels=4,
        out_channels=4,
        attention_head_dim=8,
        down_block_types=(down, "DownBlock2D"),
        up_block_types=(up, "UpBlock2D"),
        downsample_type="resnet",
        upsample_type="resnet",
    )
    return type(unet.down_blocks[0].downsamplers[0]).__name__, type(unet.up_blocks[0].upsamplers[0]).__name__


for setting in ("resnet_out_scale_factor", "mid_block_scale_factor"):
    print(f"{setting}=2: usual blocks {change(USUAL, **{setting: 2.0}):.3f}, resampling blocks {change(RARE, **{setting: 2.0}):.3f} of the spread")
print("resnet resampling, without attention:", *samplers("DownBlock2D", "UpBlock2D"))
print("resnet resampling, with attention:", *samplers("AttnDownBlock2D", "AttnUpBlock2D"))
assert change(USUAL, resnet_out_scale_factor=2.0) == 0.0
assert change(RARE, resnet_out_scale_factor=2.0) > 0.1 and change(USUAL, mid_block_scale_factor=2.0) > 0.1
assert samplers("DownBlock2D", "UpBlock2D") == ("Downsample2D", "Upsample2D")
assert samplers("AttnDownBlock2D", "AttnUpBlock2D") == ("ResnetBlock2D", "ResnetBlock2D")
PY
