"""Networks by their sizes or settings."""

from __future__ import annotations

from edadm.networks.families import FAMILIES
from edadm.networks.family import Network
from edadm.networks.settings.architecture import Architecture


def build_network(architecture: Architecture) -> Network:
    """A randomly initialised network of the architecture's family.

    Raises:
        EdadmError: diffusers knows no such network.
    """
    return FAMILIES[architecture.family].build(architecture)
