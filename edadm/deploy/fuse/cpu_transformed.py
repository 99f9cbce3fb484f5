"""Integer layers on a CPU whose input is rotated, has grids of tokens, or goes through a branch as well."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from edadm.deploy.fuse.cpu import CpuLinear
from edadm.nn.token_quantizer import TokenQuantizer
from edadm.nn.transformed import TransformedLinear, beside
from edadm.quant.rotation import rotated


class CpuTransformedLinear(CpuLinear):
    """A `TransformedLinear` that multiplies codes; what is done to its input, and the branch, are fp32.

    It means what that layer does. Codes are the same wherever the transformed inputs are. With grids of
    tokens, the exact sum is multiplied by the row's scale, then by the token's, and the bias is added, each
    with one rounding.
    """

    smooth: Tensor | None
    down: Tensor | None
    up: Tensor | None

    def __init__(self, layer: TransformedLinear):
        super().__init__(layer)
        grid = layer.input_quantizer
        assert grid is not None
        self.tokens = grid if isinstance(grid, TokenQuantizer) else None
        self.segments[0].divisor = grid.scale.clone()  # the input that it is given is smoothed already
        self.rotation = layer.rotation
        self.register_buffer("smooth", None if layer.smooth is None else layer.smooth.float())
        self.register_buffer("down", None if layer.down is None else layer.down.float())
        self.register_buffer("up", None if layer.up is None else layer.up.float())

    def forward(self, x: Float[Tensor, "*n channels"], in_place: bool = False) -> Float[Tensor, "*n rows"]:
        """The layer's output; `in_place` changes nothing."""
        self._refuse_unfitting(x, -1)
        x = x if self.smooth is None else x / self.smooth
        x = x if self.rotation is None else rotated(x, self.rotation)
        if self.tokens is None:
            output = self._of_rows(x, self.bias)
        else:
            scales = self.tokens.scales(x)
            output = self._of_rows(x / scales, None) * scales
            output = output if self.bias is None else output + self.bias
        return output if self.down is None else output + beside(x, self.down, self.up)

    def _of_rows(self, x: Float[Tensor, "*n channels"], bias: Tensor | None) -> Float[Tensor, "*n rows"]:
        """The product of the layer's codes with an input in units of its grid."""
        rows = x.reshape(1, -1, x.shape[-1]).transpose(1, 2).unsqueeze(-1)
        output = self._product(rows, False, bias).squeeze(-1).transpose(1, 2)
        return output.reshape(*x.shape[:-1], output.shape[-1])
