"""Convert: a part of a foreign checkpoint in the layout of its module."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edadm.config.schema import Model
from edadm.config.stated import settings_of
from edadm.stages.cost.work import FP32, Cost
from edadm.stages.inputs.provenance import code_of, facts_of

if TYPE_CHECKING:
    from edadm.networks.lora import Lora
    from edadm.stages.cost.networks import Networks

UNET = ("layout", "ema", "architecture", "prediction", "schedule")  # settings of a model
PARTS = ("layout", "architecture", "autoencoder", "conditioning")


def run(model: Model, part: str, output: Path, loras: Sequence[str] = ()) -> None:
    """Brings a part of a checkpoint into the layout of its module, checked against the preset's sizes.

    Args:
        model: the preset.
        part: `unet`, `autoencoder` or `condition`.
        output: the file to write.
        loras: files of LoRAs to merge into the weights, as `FILE` or `FILE:STRENGTH`.
    """
    from edadm.artifacts import making, save_tensors
    from edadm.artifacts.digest import canonical
    from edadm.config.files.sources import locate
    from edadm.networks.convert import convert_checkpoint
    from edadm.networks.lora import loras_for, merged

    added = loras_for(part, loras)
    known = facts_of("weights", _made_from(model, part) | _of_loras(added))
    source = [_source(locate(model.checkpoint)), settings_of(model, "layout", "ema")]
    source += [[_source(lora.path), lora.strength] for lora in added]
    with making([output], known, canonical([code_of("convert"), source])) as work:
        if work is None:
            return
        state = convert_checkpoint(model, part)
        if added:
            state = merged(state, added, model, part)
        with work.publishing() as partial:
            save_tensors(partial, state, known)


def _source(path: Path) -> list[Any]:
    """What tells a checkpoint from others unread: its place, and names, sizes and times of its files."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    told = ([file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files)
    return [str(path.resolve()), *told]


def _of_loras(loras: Sequence[Lora]) -> dict[str, Any]:
    """What is told of merged files beside the network; nothing where there are none."""
    told = [{"file": lora.path.name, "strength": lora.strength} for lora in loras]
    return {"lora": told} if told else {}


def _made_from(model: Model, part: str) -> dict[str, Any]:
    """What tells converted weights from others: the network, and nothing of the file that they came in."""
    setting = {"unet": "architecture", "autoencoder": "autoencoder", "condition": "conditioning"}[part]
    settings = settings_of(model, setting)
    if part == "condition":
        used = {"kind", "classes", "encoder", "second_encoder", "pooled_channels", "t5"}
        used &= settings["conditioning"].keys()
        settings["conditioning"] = {name: settings["conditioning"][name] for name in used}
        if model.conditioning is not None and model.conditioning.encodes_images:  # their encoder lies beside
            settings |= settings_of(model, "autoencoder")
    return {"part": part, "model": settings}


def cost(name: str, networks: Networks) -> Cost:
    """The cost for all parts of a model."""
    parameters = networks.parameters + networks.decoder_parameters + networks.condition_parameters
    return Cost("convert-checkpoint", name, disk=parameters * FP32)
