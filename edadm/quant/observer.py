"""Activation ranges from batches of data: one-sidedness from the first batch, then an exponential average."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.quant.affine import scale_and_zero_point
from edadm.quant.ranges import Range, best_asymmetric_range, best_range, best_range_of_histogram, sidedness


class RunningRange:
    """The range of one tensor of the network over the batches it sees (method, 3.3).

    Whether values lie on one side of zero is decided on the first batch and then fixed. Every batch moves the
    range by `momentum` towards its own best range; the result depends on the order and the number of batches,
    as in the official code (quirk Q38).

    Args:
        bits: width of the grid.
        momentum: share of a new batch, in [0, 1].
        bins: histogram bins of the range search; None searches on the values themselves.
        asymmetric: gives the two ends values of their own, where the method has `low = -high` (quirk Q40).
    """

    def __init__(self, bits: int, momentum: float = 0.1, bins: int | None = None, asymmetric: bool = False):
        self.bits, self.momentum, self.bins, self.asymmetric = bits, momentum, bins, asymmetric
        self.batches = 0
        self._sides = (1.0, 1.0)
        self._range: Range | None = None

    def update(self, x: Float[Tensor, "..."]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Takes a batch in; returns the scale and zero point of the running range."""
        if self._range is None:
            self._sides = sidedness(x.min().item(), x.max().item())
        if self.bins is None:
            search = best_asymmetric_range if self.asymmetric else best_range
            batch = search(x.detach().reshape(1, -1).float(), self.bits, self._sides)
        else:
            batch = best_range_of_histogram(x, self.bits, self.bins, self._sides, self.asymmetric)
        if self._range is not None:
            low = torch.lerp(self._range.low, batch.low, self.momentum)
            batch = Range(low, torch.lerp(self._range.high, batch.high, self.momentum))
        self._range = batch
        self.batches += 1
        scale, zero_point = scale_and_zero_point(batch.low, batch.high, self.bits)
        return scale[0], zero_point[0]
