"""The module that puts a tensor on a grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edadm.kernels.learning.operations import broadcast_qparams, fake_quantize
from edadm.quant.affine import Bound, dequantize, qmin_qmax, quantize
from edadm.quant.format import INTEGERS
from edadm.quant.scheme import Granularity, Scheme
from edadm.quant.streams import Stream


class Quantizer(nn.Module):
    """Fake-quantizes activations per tensor, or weights per output channel, each segment on its own grid.

    Args:
        bits: width of the grid.
        segments: sizes of the channel segments with a grid each (axis 1 of the tensor); one segment is the
            usual case.
        rows: output channels of a weight; None for activations.
        transforms: names of what is done to the tensor before it comes here.

    Buffers `scale` and `zero_point` have shape (segments,) for activations and (rows, segments) for weights.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        bits: int,
        segments: tuple[int, ...] = (1,),
        rows: int | None = None,
        transforms: tuple[str, ...] = (),
    ):
        super().__init__()
        self.bits, self.segments, self.rows, self.transforms = bits, segments, rows, transforms
        self.enabled = True
        self._drop: tuple[float, Stream | None] = (0.0, None)
        shape = (len(segments),) if rows is None else (rows, len(segments))
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("zero_point", torch.zeros(shape))
        self._qmin_qmax: tuple[Bound, Bound] = (0.0, 2.0**bits - 1)

    @property
    def scheme(self) -> Scheme:
        """The scheme that this module computes."""
        granularity: Granularity = "tensor" if self.rows is None else "channel"
        return Scheme(INTEGERS[self.bits], granularity, transforms=self.transforms)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, segments={self.segments}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Quantizer:
        """Moves the grid's limits along with the buffers; no cast to half precision reaches a grid.

        A scale rounded to half precision is another grid than the one that was learned.
        """
        scale, zero_point = self.scale, self.zero_point
        super()._apply(fn, recurse)
        self.scale, self.zero_point = _precise(scale, self.scale), _precise(zero_point, self.zero_point)
        low, high = (
            _precise(bound, fn(bound)) if isinstance(bound, Tensor) else bound for bound in self._qmin_qmax
        )
        self._qmin_qmax = low, high
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """Takes the grid of a state, and its limits with it."""
        super()._load_from_state_dict(*arguments)
        self._qmin_qmax = qmin_qmax(self.zero_point, self.bits)

    def set_grid(self, scale: Float[Tensor, "..."], zero_point: Float[Tensor, "..."]) -> None:
        """Replaces scale and zero point; their shapes must be those of the buffers.

        Raises:
            ValueError: another shape.
        """
        if scale.shape != self.scale.shape or zero_point.shape != self.zero_point.shape:
            raise ValueError(
                f"scale {tuple(scale.shape)} does not fit a quantizer of shape {tuple(self.scale.shape)}"
            )
        self.scale = scale.detach().to(self.scale.device)
        self.zero_point = zero_point.detach().to(self.zero_point.device)
        self._qmin_qmax = qmin_qmax(self.zero_point, self.bits)

    def drop(self, probability: float, stream: Stream | None) -> None:
        """Leaves each element unquantized with `probability` from now on (QDrop); 0 switches it off."""
        self._drop = (probability, stream)

    def grid(self, dimensions: int) -> tuple[Tensor, Tensor]:
        """Scale and zero point, shaped to broadcast against a tensor of that many dimensions."""
        has_rows = self.rows is not None
        scale = broadcast_qparams(self.scale, self.segments, dimensions, has_rows)
        return scale, broadcast_qparams(self.zero_point, self.segments, dimensions, has_rows)

    def codes(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The nearest integer codes of values, in [0, 2^bits - 1]."""
        return quantize(x, *self.grid(x.dim()), self.bits)

    def values(self, codes: Tensor) -> Tensor:
        """The values of integer codes."""
        return dequantize(codes, *self.grid(codes.dim()))

    def forward(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        if not self.enabled:
            return x
        return fake_quantize(
            x, self.scale, self.zero_point, self.bits, self.segments, self._qmin_qmax, *self._drop
        )


def _precise(before: Tensor, after: Tensor) -> Tensor:
    """`after`; or, where that has been rounded to half precision, `before` in its place."""
    return after if after.dtype.itemsize >= 4 else before.to(after.device)
