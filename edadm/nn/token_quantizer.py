"""The module that puts each token of a linear layer's input on a grid of its own, when the network runs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edadm.quant.affine import SMALLEST_SCALE
from edadm.quant.format import INTEGERS
from edadm.quant.scheme import Scheme


class TokenQuantizer(nn.Module):
    """Fake-quantizes activations on a symmetric grid of each token, which needs no calibration.

    A token is all channels at one place of one row. Its scale is its largest magnitude divided by
    2^(bits-1) - 1, so that nothing is clipped; its codes are 1 to 2^bits - 1 around the zero point
    2^(bits-1). Gradients pass straight through.

    Args:
        bits: width of the grid.
        transforms: names of what is done to the tensor before it comes here.

    Attributes:
        scale, zero_point: of the codes in units of a token's scale, as integer products want them.
    """

    segments = ()

    def __init__(self, bits: int, transforms: tuple[str, ...] = ()):
        super().__init__()
        self.bits, self.transforms = bits, transforms
        self.enabled = True

    @property
    def scheme(self) -> Scheme:
        """The scheme that this module computes."""
        number_format, transforms = INTEGERS[self.bits], self.transforms
        return Scheme(number_format, "token", is_dynamic=True, is_symmetric=True, transforms=transforms)

    @property
    def scale(self) -> Float[Tensor, "1"]:
        return torch.ones(1)

    @property
    def zero_point(self) -> Float[Tensor, "1"]:
        return torch.full((1,), 2.0 ** (self.bits - 1))

    def extra_repr(self) -> str:
        return f"bits={self.bits}"

    def scales(self, x: Float[Tensor, "*n c"]) -> Float[Tensor, "*n 1"]:
        """The scale of each token, in fp32 and at least `SMALLEST_SCALE`."""
        largest = x.detach().abs().amax(-1, keepdim=True).float()
        return (largest / (2 ** (self.bits - 1) - 1)).clamp(min=SMALLEST_SCALE)

    def forward(self, x: Float[Tensor, "*n c"]) -> Float[Tensor, "*n c"]:
        if not self.enabled:
            return x
        scales = self.scales(x)
        on_grid = torch.round(x.detach() / scales).mul_(scales).to(x.dtype)
        return x + (on_grid - x).detach() if x.requires_grad else on_grid
