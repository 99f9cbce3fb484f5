"""Autoencoders, class embeddings and text encoders of CompVis' files from the shapes of their tensors."""

from __future__ import annotations

import re
from pathlib import Path

from edadm.networks.settings.reading import DescriptionError, Settings, groups_of

Shapes = dict[str, tuple[int, ...]]
_FIRST_STAGE = "first_stage_model."
_TOKENS = re.compile(r"(.*)embeddings\.token_embedding\.weight$")


def autoencoder_of(shapes: Shapes, left_open: list[str], path: Path) -> Settings | None:
    """The settings of the autoencoder in a file; None where there is none.

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
    scale = 1.0 if kind == "vq" else 0.18215
    left_open.append(
        f"autoencoder.scale stands in no tensor of the file; {scale} is that of the published networks of "
        "this kind"
    )
    return settings | {"scale": scale}


def condition_of(shapes: Shapes, width: int, left_open: list[str], path: Path) -> Settings:
    """The settings of what the network is told: a class embedding's, or a CLIP text encoder's.

    Raises:
        DescriptionError: a text encoder of another width than the context's.
    """
    embedding = shapes.get("cond_stage_model.embedding.weight")
    if embedding is not None:
        left_open.append(
            f"of the {embedding[0]} embeddings the last one is taken for no class, as in cin256-v2"
        )
        left_open.append("conditioning.guidance stands in no file; 3 is that of the published run")
        return {"kind": "classes", "classes": embedding[0] - 1, "guidance": 3.0}
    left_open.append(
        "conditioning.prompts: set it to your captions (COCO's JSON) or to a text file, a prompt per line"
    )
    left_open.append("conditioning.guidance stands in no file; 7.5 is usual for Stable Diffusion")
    settings: Settings = {"kind": "text", "guidance": 7.5, "prompts": "prompts.txt"}
    prefix = next((match.group(1) for name in shapes if (match := _TOKENS.match(name))), None)
    if prefix is None:
        left_open.append("the file holds no CLIP text encoder: set conditioning.checkpoint to one")
        return settings
    channels = shapes[f"{prefix}embeddings.token_embedding.weight"][1]
    if channels != width:
        raise DescriptionError(
            f"{path} holds a text encoder of {channels} channels and a U-Net with a context of {width}; "
            "which belong to different models"
        )
    layers = {
        int(m.group(1))
        for name in shapes
        if (m := re.match(re.escape(prefix) + r"encoder\.layers\.(\d+)\.", name))
    }
    heads = max(1, channels // 64)
    if channels != 768:
        left_open.append(
            f"conditioning.encoder.heads stands in no tensor: {heads} is a guess (64 channels a head, as in "
            "CLIP)"
        )
    settings["encoder"] = {
        "channels": channels,
        "hidden_channels": shapes[f"{prefix}encoder.layers.0.mlp.fc1.weight"][0],
        "layers": len(layers),
        "heads": heads,
        "tokens": shapes[f"{prefix}embeddings.position_embedding.weight"][0],
    }
    return settings
