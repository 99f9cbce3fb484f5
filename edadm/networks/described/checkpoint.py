"""A checkpoint in whatever form it has, as an entry under `models:`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edadm.config.described.entry import Description
from edadm.config.described.folder import CONFIG, PIPELINE, config_of, describe_folder
from edadm.config.described.foreign import describe_with, training_with
from edadm.config.described.published import completed
from edadm.config.schema import Model
from edadm.errors import EdadmError


def checkpoint_at(path: Path) -> Path:
    """The absolute path of a checkpoint, of a folder if its `config.json` or `model_index.json` is named.

    Raises:
        EdadmError: there is nothing.
    """
    path = path.expanduser().absolute()
    if not path.exists():
        raise EdadmError(f"there is no file {path}; name a checkpoint, or a diffusers folder")
    return path.parent if path.name in (CONFIG, PIPELINE) else path


def describe_checkpoint(path: Path, config: Path | None, presets: Mapping[str, Model]) -> Description:
    """What a diffusers folder says of itself, or a file by its tensors or its training's configuration.

    A sampler, trajectories and what else no file says are added.

    Args:
        path: from `checkpoint_at`.
        config: the configuration of the training, if there is one.
        presets: whose settings are taken where the network is theirs.

    Raises:
        DescriptionError: of a network that is not built here.
    """
    training = None if config is None else training_with(config)
    if config is not None and training is None:
        found = describe_with(config, path)
    elif training is None and (path.is_dir() or config_of(path, "unet") is not None):
        found = describe_folder(path)
    else:
        from edadm.networks.described.tensors import describe_tensors

        found = describe_tensors(path, presets, training)
    return completed(found, presets)
