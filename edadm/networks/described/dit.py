"""DiT's and PixArt's original files: names and shapes say all but heads and the height of the latents."""

from __future__ import annotations

import math

from edadm.networks.described.sizes import indices
from edadm.networks.settings.reading import Settings

Shapes = dict[str, tuple[int, ...]]
_HEADS = {1152: 16, 1024: 16, 768: 12, 384: 6}  # of DiT-XL, L, B and S
_CHANNELS_OF_A_HEAD = 64
_SIDE = 32
_UNSCALED = 64  # height of latents up to which PixArt's positions are those of its training at 512 pixels
AUTOENCODER = {
    "kind": "kl",
    "latent_channels": 4,
    "multipliers": [1, 2, 4, 4],
    "scale": 0.18215,
    "checkpoint": "sd-vae-ft-ema",
}


def dit(shapes: Shapes, left_open: list[str]) -> Settings:
    """The architecture of a transformer in the original layout.

    Args:
        shapes: of its tensors, by the names inside it.
        left_open: sentences on what no tensor says.

    Raises:
        KeyError: a tensor is missing that all such networks have.
    """
    settings: Settings = {"family": "dit"} | _patches(shapes, left_open)
    settings["classes"] = shapes["y_embedder.embedding_table.weight"][0] - 1
    left_open.append(
        "files of SiT have the same names, and are of flow matching, which no sampler here follows: look "
        "that yours is none"
    )
    return settings


def pixart(shapes: Shapes, left_open: list[str]) -> Settings:
    """The architecture of one that is told a text; arguments and errors as of `dit`."""
    settings: Settings = {"family": "pixart"} | _patches(shapes, left_open)
    settings["context_channels"] = shapes["y_embedder.y_proj.fc1.weight"][1]
    if (scale := max(settings["image_size"] // _UNSCALED, 1)) > 1:
        settings["position_scale"] = scale
        left_open.append(f"architecture.position_scale stands in no tensor: {scale} is usual for this size")
    return settings | ({"size_told": True} if "csize_embedder.mlp.0.weight" in shapes else {})


def _patches(shapes: Shapes, left_open: list[str]) -> Settings:
    """What both have in common."""
    width, latents, patch, _ = shapes["x_embedder.proj.weight"]
    out = shapes["final_layer.linear.weight"][0] // patch**2
    heads = _HEADS.get(width, max(1, width // _CHANNELS_OF_A_HEAD))
    left_open.append(f"architecture.heads stands in no tensor: {heads} is usual for {width} channels")
    patches = shapes.get("pos_embed", ())
    side = math.isqrt(patches[1]) * patch if len(patches) == 3 else _SIDE
    if not patches:
        left_open.append(
            f"architecture.image_size stands in no tensor: {side} is that of images of 256 pixels"
        )
    settings: Settings = {"image_size": side, "in_channels": latents, "channels": width}
    settings |= {"heads": heads, "blocks": len(indices(shapes, r"blocks\.(\d+)\.")), "patch": patch}
    return settings | ({} if out == latents else {"out_channels": out})
