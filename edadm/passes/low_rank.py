"""Low-rank branches: what a few directions of a weight compute is left in 16-bit floating point (SVDQuant).

The paper is arXiv 2411.05007. Beside a linear layer of 4-bit weights and inputs lies a product of two
matrices of rank r, from the singular value decomposition of the transformed weight; the rest is quantized.
Smoothing, if the settings ask for it, comes before, so that the branch takes up what it moved into the
weight.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float16
from torch import Tensor, nn

from edadm.config.schema import Bits
from edadm.errors import EdadmError
from edadm.networks.inputs import Rows
from edadm.nn.insert import transformed_layers
from edadm.passes.ranges import refuse_flawed_weights


@torch.no_grad()
def take_off_low_rank(network: nn.Module, inputs: Rows, bits: Bits, on_batch: Callable[[int], None]) -> None:
    """Gives each layer whose scheme has one its branch, and takes that off its weight.

    Args:
        network: after `quantize_network`, its weights in floating point, smoothed and rotated if they are
        to be.
        inputs: of the network; not looked at.
        bits: has the rank, of which a layer with fewer rows or channels has as many as it can.
        on_batch: is told nothing.

    Raises:
        EdadmError: a weight is not finite, or its branch is none in 16 bits.
    """
    layers = {name: layer for name, layer in transformed_layers(network).items() if layer.has_branch}
    if not layers or bits.linear is None or bits.linear.rank is None:
        return
    refuse_flawed_weights(network)
    for name, layer in layers.items():
        branch = low_rank(layer.weight.detach(), bits.linear.rank)
        if not all(bool(factor.isfinite().all()) for factor in branch):
            raise EdadmError(
                f"the weight of {name} is too large for a branch in 16-bit floating point; leave it out of "
                "`linear.layers`"
            )
        layer.set_branch(*branch)


def low_rank(
    weight: Float[Tensor, "rows channels"], rank: int
) -> tuple[Float16[Tensor, "rank channels"], Float16[Tensor, "rows rank"]]:
    """The two factors of the best approximation of a weight of at most that rank, `up @ down`.

    Both take the root of each singular value, so that neither is far from the other in size.
    """
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    roots = values[:rank].sqrt()
    return (roots[:, None] * right[:rank]).half().contiguous(), (left[:, :rank] * roots).half().contiguous()
