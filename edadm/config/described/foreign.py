"""Configuration files of the original training codes, told apart by what stands in them."""

from __future__ import annotations

from pathlib import Path

from edadm.config.described.compvis import describe_compvis
from edadm.config.described.entry import Description, DescriptionError
from edadm.config.described.ermongroup import describe_ermongroup
from edadm.config.inputs.settings import ConfigError, read_settings


def describe_with(file: Path, checkpoint: Path) -> Description:
    """A checkpoint as its training's configuration file describes it.

    Raises:
        DescriptionError: no such file, of no code that is known here, incomplete, or of a network that is not built here.
    """
    try:
        config = read_settings(file)
    except ConfigError as error:
        raise DescriptionError(str(error)) from None
    model = config.get("model")
    try:
        if isinstance(model, dict) and isinstance(model.get("params"), dict):
            return describe_compvis(config, file, checkpoint)
        if isinstance(model, dict) and "ch" in model:
            return describe_ermongroup(config, file, checkpoint)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        if isinstance(error, DescriptionError):
            raise
        raise DescriptionError(f"{file} has a value of the wrong kind ({error}); fetch it again") from None
    raise DescriptionError(
        f"{file} is neither a project.yaml of CompVis' code (model.params.unet_config) nor a configuration of ermongroup/ddim "
        "(model.ch); leave out --config to read the tensors alone"
    )
