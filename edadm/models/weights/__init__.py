"""How a checkpoint is read without trusting it, and compared with the network it should fit."""

from edadm.models.weights.errors import CheckpointError
from edadm.models.weights.fit import check_fit
from edadm.models.weights.reading import read_state

__all__ = ["CheckpointError", "check_fit", "read_state"]
