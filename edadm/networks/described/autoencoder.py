"""Autoencoders of CompVis' files from the shapes of their tensors."""

from __future__ import annotations

import re
from pathlib import Path

from edadm.networks.settings.reading import DescriptionError, Settings, groups_of

Shapes = dict[str, tuple[int, ...]]
_FIRST_STAGE = "first_stage_model."


_SCALES = {"vq": 1.0, "kl": 0.18215}
_XL_SCALE = 0.13025


def autoencoder_of(shapes: Shapes, left_open: list[str], path: Path, family: str = "") -> Settings | None:
    """The settings of the autoencoder in a file; None where there is none.

    Args:
        shapes: of all tensors of the file.
        left_open: sentences on what no tensor says.
        path: of the file, for sentences.
        family: of its U-Net.

    Raises:
        DescriptionError: of one that is not built here.
    """
    own = {
        name.removeprefix(_FIRST_STAGE): shape
        for name, shape in shapes.items()
        if name.startswith(_FIRST_STAGE)
    }
    if "decoder.conv_in.weight" not in own or "encoder.conv_in.weight" not in own:
        left_open.append(
            "the file holds no autoencoder: set autoencoder to the one its latents belong to, with its "
            "checkpoint"
        )
        return None
    if any(re.match(r"(?:encoder\.down|decoder\.up)\.\d+\.attn\.", name) for name in own):
        raise DescriptionError(
            f"{path} holds an autoencoder with attention beside the middle, which is not built here"
        )
    channels, pixels = own["encoder.conv_in.weight"][:2]
    latent, kind = own["decoder.conv_in.weight"][1], "vq" if "quantize.embedding.weight" in own else "kl"
    if own["post_quant_conv.weight"][:2] != (latent, latent):
        raise DescriptionError(
            f"{path} holds an autoencoder of {own['post_quant_conv.weight'][1]} latent channels made from "
            f"{latent}, which is not built here"
        )
    levels = {
        int(match.group(1)) for name in own if (match := re.match(r"encoder\.down\.(\d+)\.block\.", name))
    }
    blocks = {
        int(match.group(1)) for name in own if (match := re.match(r"encoder\.down\.0\.block\.(\d+)\.", name))
    }
    widths = [own[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in sorted(levels)]
    settings: Settings = {
        "kind": kind,
        "latent_channels": latent,
        "image_channels": pixels,
        "channels": channels,
        "multipliers": [width // channels for width in widths],
        "blocks_per_level": len(blocks),
    }
    settings |= groups_of(widths, left_open, "autoencoder")
    if kind == "vq":
        settings["codes"] = own["quantize.embedding.weight"][0]
    if "scale_factor" in shapes:
        return settings | {"scale": None}
    scale = _XL_SCALE if family == "sdxl" else _SCALES[kind]
    left_open.append(
        f"autoencoder.scale stands in no tensor of the file; {scale} is that of the published networks of "
        "this kind"
    )
    return settings | {"scale": scale}
