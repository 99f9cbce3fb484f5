"""The backend `simulated`: floating-point arithmetic on the grids, for every device and every scheme."""

from __future__ import annotations

import torch
from torch import nn

from edadm.deploy.backends.base import Backend
from edadm.networks.family import Network
from edadm.nn.sound import pass_on_what_is_not_finite
from edadm.quant.scheme import Scheme


class Simulated(Backend):
    """The backend that leaves a network as its checkpoint was read."""

    def runs(self, scheme: Scheme) -> bool:
        """Every scheme is simulated."""
        return True

    def lower(self, unet: Network, dtype: torch.dtype) -> Network:
        """The network itself, cast to `dtype` but for its grids."""
        pass_on_what_is_not_finite(unet)
        # diffusers' own `to` warns of every cast
        return unet if dtype == torch.float32 else nn.Module.to(unet, dtype)


BACKEND = Simulated()
