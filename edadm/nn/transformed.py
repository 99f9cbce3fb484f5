"""Linear layers whose operands are transformed before they are put on grids."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float16
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.nn.layers import QuantizedLinear
from edadm.nn.token_quantizer import TokenQuantizer
from edadm.quant.rotation import rotated
from edadm.quant.scheme import LOW_RANK, ROTATIONS


class TransformedLinear(QuantizedLinear):
    """A quantized linear layer with a rotation, a branch of low rank, or an input grid of each token.

    The input is smoothed, then rotated, then put on its grid; the weight is transformed alike once, and
    what the branch computes is taken off it before it is rounded. The branch (SVDQuant, arXiv 2411.05007)
    takes the
    transformed input in floating point: the output is that of codes and grids plus `up(down(input))`.

    Args:
        layer: as of `QuantizedLinear`; so are the widths.
        weight_bits: width of the weight grid.
        input_bits: width of the input grid.
        transforms: of the weight; those of the input are the same without `low_rank`.
        is_dynamic: whether each token of the input has a grid of its own.

    Attributes:
        down, up: the branch, fp16 whatever the network is cast to; None until there is one.
        is_rotated: whether the weight is rotated already, and inputs are.
    """

    down: Float16[Tensor, "rank channels"] | None
    up: Float16[Tensor, "rows rank"] | None

    def __init__(
        self,
        layer: nn.Linear,
        weight_bits: int,
        input_bits: int,
        transforms: tuple[str, ...],
        is_dynamic: bool = False,
    ):
        of_input = tuple(name for name in transforms if name != LOW_RANK)
        super().__init__(layer, weight_bits, input_bits, (layer.weight.shape[1],), transforms)
        assert self.input_quantizer is not None
        self.input_quantizer.transforms = of_input
        if is_dynamic:
            self.input_quantizer = TokenQuantizer(input_bits, of_input)  # type: ignore[assignment]
        self.rotation = next((name for name in transforms if name in ROTATIONS), None)
        self.has_branch, self.is_rotated = LOW_RANK in transforms, False
        self.register_buffer("down", None)
        self.register_buffer("up", None)

    @property
    def is_dynamic(self) -> bool:
        """Whether each token of the input has a grid of its own."""
        return isinstance(self.input_quantizer, TokenQuantizer)

    def rotate(self) -> None:
        """Rotates the weight, which has no codes yet, and from now on the input, if the scheme says so."""
        if self.rotation is not None and not self.is_rotated:
            self.weight.data = rotated(self.weight.detach(), self.rotation)
            self.is_rotated = True

    def set_branch(self, down: Tensor, up: Tensor) -> None:
        """Takes what a branch, (rank, channels) and (rows, rank), computes off the transformed float weight.

        Raises:
            ValueError: the layer has no branch, or another one already; or these are of another layer.
        """
        rows, channels = self.weight.shape
        if down.shape != (up.shape[1], channels) or len(up) != rows or not self.has_branch:
            raise ValueError(
                f"a branch of {tuple(down.shape)} and {tuple(up.shape)} does not fit a layer of weight "
                f"{tuple(self.weight.shape)}"
            )
        if down.dtype != torch.float16 or up.dtype != torch.float16:
            raise ValueError(f"a branch is in float16, not in {down.dtype} and {up.dtype}")
        whole = self.weight.detach() if self.down is None else self.weight.detach() + self._of_branch()
        self.down, self.up = down.to(whole.device), up.to(whole.device)
        self.weight.data = whole - self._of_branch()

    def _of_branch(self) -> Float[Tensor, "rows channels"]:
        """What the branch multiplies with, as one matrix."""
        assert self.down is not None and self.up is not None
        return self.up.to(self.weight.dtype) @ self.down.to(self.weight.dtype)

    @property
    def unsmoothed_weight(self) -> Float[Tensor, "rows channels"]:
        """The weight that an input is multiplied with to which nothing has been done; the branch is in it."""
        weight = self.weight.detach() if self.down is None else self.weight.detach() + self._of_branch()
        if self.rotation is not None and self.is_rotated:
            weight = rotated(weight, self.rotation)
        return weight if self.smooth is None else weight / self.smooth

    def transformed(self, x: Float[Tensor, "*n channels"]) -> Float[Tensor, "*n channels"]:
        """The input, smoothed and rotated, as the layer says."""
        x = x if self.smooth is None else x / self.smooth
        return rotated(x, self.rotation) if self.rotation is not None and self.is_rotated else x

    def forward(self, x: Float[Tensor, "*n channels"]) -> Float[Tensor, "*n rows"]:
        self._refuse_unfitting(x)
        weight = self.weight if self.alpha is None else self.soft_weight()
        x = self.transformed(x)
        output = self.operation(x if self.input_quantizer is None else self.input_quantizer(x), weight)
        return output if self.down is None else output + beside(x, self.down, self.up)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TransformedLinear:
        """Moves the branch along; no cast reaches it, as it would round it again."""
        down, up = self.down, self.up
        super()._apply(fn, recurse)
        if down is not None and up is not None and self.down is not None and self.up is not None:
            self.down, self.up = down.to(self.down.device), up.to(self.up.device)
        return self


def beside(x: Float[Tensor, "*n c"], down: Tensor, up: Tensor | None) -> Float[Tensor, "*n rows"]:
    """The output of a branch, computed in the input's own type."""
    assert up is not None
    return F.linear(F.linear(x, down.to(x.dtype)), up.to(x.dtype))
