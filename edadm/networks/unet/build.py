"""U-Nets by their sizes or settings."""

from __future__ import annotations

from edadm.networks.families import FAMILIES
from edadm.networks.settings.architecture import UNetArchitecture
from edadm.networks.unet.base import UNet, UNetFamily


def build_unet(architecture: UNetArchitecture) -> UNet:
    """A randomly initialised U-Net of the architecture's family.

    Raises:
        EdadmError: diffusers knows no such network.
    """
    family = FAMILIES[architecture.family]
    assert isinstance(family, UNetFamily)
    return family.build(architecture)
