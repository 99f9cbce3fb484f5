"""The `config.json` of any network of diffusers that is built here as an architecture."""

from __future__ import annotations

from pathlib import Path

from edadm.networks.settings.configs.dit import dit_architecture
from edadm.networks.settings.configs.mmdit import mmdit_architecture
from edadm.networks.settings.configs.pixart import pixart_architecture
from edadm.networks.settings.configs.unet import unet_architecture
from edadm.networks.settings.reading import TRANSFORMERS, Settings

_OWN = (dit_architecture, pixart_architecture, mmdit_architecture)  # of `TRANSFORMERS`, in their order


def network_architecture(config: Settings, where: Path) -> tuple[Settings, list[str]]:
    """The settings of the architecture, and what the file leaves open.

    Args:
        config: content of the file.
        where: the file, for sentences.

    Raises:
        DescriptionError: of a network that is not built here; names the key.
    """
    readers = dict(zip(TRANSFORMERS, _OWN, strict=True))
    return readers.get(str(config.get("_class_name")), unet_architecture)(config, where)
