"""Configuration files of the original training codes, told apart by what stands in them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from edadm.config.described.compvis import describe_compvis, training_beside
from edadm.config.described.entry import Description
from edadm.config.described.ermongroup import describe_ermongroup
from edadm.config.inputs.settings import ConfigError, read_settings
from edadm.config.schema import NoiseSchedule
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.parts import Autoencoder
from edadm.networks.settings.reading import DescriptionError, Settings, understood

_KINDS: dict[str, type[BaseModel]] = {
    "architecture": Architecture,
    "autoencoder": Autoencoder,
    "schedule": NoiseSchedule,
}


def describe_with(file: Path, checkpoint: Path) -> Description:
    """A checkpoint as its training's configuration file describes it.

    Raises:
        DescriptionError: no such file, of no code that is known here, incomplete, or of a network that is not
            built here.
    """
    try:
        config = read_settings(file)
    except ConfigError as error:
        raise DescriptionError(str(error)) from None
    return understood(lambda content, where: _described(content, where, checkpoint))(config, file)


def training_with(file: Path) -> tuple[str, Settings] | None:
    """What a configuration file says of a training, where the checkpoint's tensors say all else.

    Raises:
        DescriptionError: no such file, or a training that no sampler here follows.
    """
    try:
        config = read_settings(file)
    except ConfigError as error:
        raise DescriptionError(str(error)) from None
    return understood(training_beside)(config, file)


def _described(config: Settings, file: Path, checkpoint: Path) -> Description:
    model = config.get("model")
    if isinstance(model, dict) and isinstance(model.get("params"), dict):
        found = describe_compvis(config, file, checkpoint)
    elif isinstance(model, dict) and "ch" in model:
        found = describe_ermongroup(config, file, checkpoint)
    else:
        raise DescriptionError(
            f"{file} is neither a project.yaml of CompVis' code (model.params.unet_config) nor a "
            "configuration of ermongroup/ddim "
            "(model.ch); leave out --config to read the tensors alone"
        )
    for name, kind in _KINDS.items():
        if name in found.settings:
            kind.model_validate(found.settings[name])
    return found
