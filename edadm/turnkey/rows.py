"""How many images are computed at once, from the sizes of a network alone."""

from __future__ import annotations

from edadm.config.schema import Model

BUDGET = 2**31  # bytes that the activations of all rows may take, by the estimate below
MOST = 32
_FP32 = 4
_KEPT = 16  # activations of the first level that are there at once


def channels_of(model: Model) -> int:
    """Channels of the first level."""
    own = model.architecture.diffusers
    return own.block_out_channels[0] if own else model.architecture.channels


def images_at_once(model: Model) -> int:
    """A power of two, at most `MOST`: fewer for large images, and for attention between many pixels."""
    pixels = (model.architecture.image_size // (model.architecture.patch or 1)) ** 2
    row = _FP32 * (_KEPT * pixels * channels_of(model) + _attention(model))
    at_once = 1
    while at_once < MOST and 2 * at_once * row <= BUDGET:
        at_once *= 2
    return at_once


def _attention(model: Model) -> int:
    """Weights of the attention at the highest resolution that has one, of all heads."""
    sizes = model.architecture
    if (own := sizes.diffusers) is None:
        side = max(sizes.attention_resolutions, default=0)
        if sizes.patch is not None:  # tokens attend to each other in every block
            side = sizes.image_size // sizes.patch
        heads = sizes.heads or sizes.channels // (sizes.head_channels or sizes.channels)
        return heads * side**4
    levels = [level for level, kind in enumerate(own.down_block_types) if "Attn" in kind]
    if not levels:
        return 0
    stated, channels = own.attention_head_dim, own.block_out_channels[levels[0]]
    size = stated[levels[0]] if isinstance(stated, tuple) else stated
    counted = own.class_name == "UNet2DConditionModel"  # where the setting is a number of heads
    heads = (size or 1) if counted else channels // (size or channels)
    return int(heads * (sizes.image_size >> levels[0]) ** 4)
