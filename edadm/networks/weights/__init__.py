"""How a checkpoint is read without trusting it, and compared with the network it should fit."""

from edadm.networks.weights.errors import CheckpointError
from edadm.networks.weights.fit import check_fit
from edadm.networks.weights.reading import read_state

__all__ = ["CheckpointError", "check_fit", "read_state"]
