"""The blocks of U-Nets that are learned at once.

Layers stand in the order in which the original networks register them (method, 4.3); FBR leaves out the last
one. In the second order the layer comes last whose output is the block's (before residuals).
"""

from __future__ import annotations

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D

from edadm.networks.family import UnitKind
from edadm.networks.settings.unit_names import ATTENTION, FEED_FORWARD

_SELF, _ACROSS = (tuple(f"{place}.{name}" for name in ATTENTION) for place in ("attn1", "attn2"))

KINDS = (
    UnitKind(
        "res_block",
        ResnetBlock2D,
        registered=("conv1", "time_emb_proj", "conv2", "conv_shortcut"),
        executed=("conv1", "time_emb_proj", "conv_shortcut", "conv2"),
    ),
    UnitKind(
        "transformer",
        BasicTransformerBlock,
        registered=(*_SELF, *FEED_FORWARD, *_ACROSS),
        executed=(*_SELF, *_ACROSS, *FEED_FORWARD),
    ),
    UnitKind("attention", Attention, registered=ATTENTION, executed=ATTENTION, channel_axis=-1),
)
