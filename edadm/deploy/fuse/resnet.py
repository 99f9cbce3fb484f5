"""The parts of a residual block, for networks that fuse what lies between its convolutions."""

from __future__ import annotations

from diffusers.models.resnet import ResnetBlock2D
from torch import nn


class ResnetParts(nn.Module):
    """The parts of diffusers' `ResnetBlock2D`.

    Args:
        block: one that `fits`.

    Attributes:
        scales: the time embedding scales and shifts the second normalisation's output (FiLM), instead of
            being added before it.
    """

    def __init__(self, block: ResnetBlock2D):
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.time_emb_proj, self.conv_shortcut = block.time_emb_proj, block.conv_shortcut
        self.scales = block.time_embedding_norm == "scale_shift"

    @staticmethod
    def fits(block: nn.Module) -> bool:
        """Whether a module is a residual block that does not resample, and has nothing unusual otherwise."""
        if not isinstance(block, ResnetBlock2D):
            return False
        plain = (
            block.upsample is None
            and block.downsample is None
            and block.time_embedding_norm in ("default", "scale_shift")
        )
        usual = (
            block.output_scale_factor == 1
            and isinstance(block.nonlinearity, nn.SiLU)
            and block.time_emb_proj is not None
        )
        return plain and usual and not block.skip_time_act
