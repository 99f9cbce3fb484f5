"""The preparation of a network of quantizers: what passes do to it before anything is learned."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from edadm.config.schema import Bits
from edadm.networks.inputs import Rows
from edadm.passes.low_rank import take_off_low_rank
from edadm.passes.ranges import set_ranges
from edadm.passes.rotation import rotate
from edadm.passes.scaling.learned import learn_scales
from edadm.passes.scaling.smooth import smooth

Preparation = Callable[[nn.Module, Rows, Bits, Callable[[int], None]], None]
PREPARATIONS: dict[str, Preparation] = {
    "smooth": smooth,
    "learn_scales": learn_scales,
    "rotate": rotate,
    "take_off_low_rank": take_off_low_rank,
    "set_ranges": set_ranges,
}


def prepare(
    network: nn.Module, inputs: Rows, bits: Bits, on_batch: Callable[[int], None] = lambda rows: None
) -> None:
    """Runs all preparations of a network, in order; each does nothing where the settings do not ask for it.

    Afterwards weights are rounded to nearest. What learns rounding starts from a fresh copy of the float
    network that is given the same grids (`edadm.deploy.grids`).

    Args:
        network: after `quantize_network`, its weights still in floating point.
        inputs: of the network, the calibration rows.
        bits: the settings.
        on_batch: told the number of rows after each batch of each preparation.

    Raises:
        EdadmError: a weight, or an input of a layer, is not finite.
    """
    for preparation in PREPARATIONS.values():
        preparation(network, inputs, bits, on_batch)
