"""Modules of integers that cannot leave the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edadm.config.backends import DEFAULT
from edadm.errors import EdadmError


class StaysOnCpu(nn.Module):
    """A module that computes on a CPU, in fp32 between integers, and nowhere else.

    Packed weights stay where they are, and their libraries may end the process when they meet another device.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StaysOnCpu:
        """Refuses to move or to be cast.

        Raises:
            EdadmError: the network is moved or cast.
        """
        after = fn(torch.zeros(1))
        if after.device.type != "cpu" or after.dtype != torch.float32:
            raise EdadmError(
                "a network of integers on a CPU stays there and in fp32, and cannot go to "
                f"{after.device.type} in {after.dtype}; load it there anew, or with backend '{DEFAULT}'"
            )
        super()._apply(fn, recurse)
        return self
