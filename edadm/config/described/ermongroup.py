"""The YAML configurations of ermongroup/ddim as an entry under `models:`."""

from __future__ import annotations

from pathlib import Path

from edadm.config.described.entry import Description
from edadm.networks.settings.reading import DescriptionError, Settings, checked, groups_of, refuse

_MODEL_READ = (
    "in_channels",
    "out_ch",
    "ch",
    "ch_mult",
    "num_res_blocks",
    "attn_resolutions",
    "dropout",
    "type",
    "var_type",
    "ema_rate",
    "ema",
)


def describe_ermongroup(config: Settings, where: Path, checkpoint: Path) -> Description:
    """What a configuration of that code says.

    Raises:
        DescriptionError: incomplete, or of a network that is not built here; names the setting.
    """
    model, diffusion, data = (config.get(name) or {} for name in ("model", "diffusion", "data"))
    checked(
        where,
        {key: value for key, value in model.items() if key not in _MODEL_READ},
        {"resamp_with_conv": True},
        {},
    )
    if model.get("resamp_with_conv", True) is not True:
        raise refuse(
            where,
            "resamp_with_conv",
            model["resamp_with_conv"],
            "only resampling by convolutions is built here",
        )
    for name, part, key in (
        ("model", model, "ch"),
        ("model", model, "ch_mult"),
        ("data", data, "image_size"),
    ):
        if key not in part:
            raise DescriptionError(
                f"{where} says no {name}.{key}; complete it, or leave it out to read the tensors alone"
            )
    channels = model.get("in_channels", 3)
    if model.get("out_ch", channels) != channels:
        reason = f"in_channels is {channels}; only networks that predict what they are given are built here"
        raise refuse(where, "out_ch", model["out_ch"], reason)
    if diffusion.get("beta_schedule", "linear") != "linear":
        reason = "only linear ones of this code are sampled here; use another checkpoint"
        raise refuse(where, "beta_schedule", diffusion["beta_schedule"], reason)
    settings: Settings = {
        "checkpoint": str(checkpoint),
        "layout": "ddim",
        "architecture": {
            "family": "ddim",
            "image_size": data["image_size"],
            "in_channels": channels,
            "channels": model["ch"],
            "multipliers": list(model["ch_mult"]),
            "blocks_per_level": model.get("num_res_blocks", 2),
            "attention_resolutions": list(model.get("attn_resolutions", [])),
        },
        "prediction": "eps",
        "schedule": {
            "kind": "linear",
            "start": float(diffusion.get("beta_start", 1e-4)),
            "end": float(diffusion.get("beta_end", 2e-2)),
            "timesteps": diffusion.get("num_diffusion_timesteps", 1000),
        },
    }
    left_open: list[str] = []
    widths = [model["ch"] * multiplier for multiplier in (1, *model["ch_mult"])]
    settings["architecture"] |= groups_of(widths, left_open, "architecture")
    return Description(
        settings, [*left_open, "ema is not set: averaged weights are taken where the file holds them"]
    )
