"""Convolutions and linear layers with a quantized weight and a quantized input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.errors import EdadmError
from edadm.kernels.dispatch import refuse_scattered
from edadm.kernels.learning.operations import soft_weight
from edadm.nn.part import Part, refuse_other_channels
from edadm.nn.quantizer import Quantizer
from edadm.quant.rounding import hard_codes, initial_alpha
from edadm.quant.scheme import SMOOTH


class QuantizedLayer(Part):
    """A convolution or linear layer whose weight lies on a grid and whose input is put on one.

    `weight` is what the layer multiplies with: the float weight until `set_codes` folds integer codes into
    it, so that no forward pass quantizes weights again. While rounding is learned, `alpha` replaces it by
    soft codes. Where it is smoothed, input channels are divided by the powers of two in `smooth` before they
    are put on the grid, and the weight's are multiplied by them (`edadm.quant.transforms`).

    Args:
        layer: the float layer; its parameters are shared, not copied.
        weight_bits: width of the weight grid.
        input_bits: width of the input grid; None leaves the input in floating point.
        segments: sizes of the input-channel segments with a grid each.
        transforms: of input and weight; `smooth` or none.

    Attributes:
        is_decided: its rounding and its grid were learned in another unit, and are not learned again.
    """

    codes: Tensor | None
    smooth: Tensor | None

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear,
        weight_bits: int,
        input_bits: int | None,
        segments: tuple[int, ...],
        transforms: tuple[str, ...] = (),
    ):
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach(), requires_grad=False)
        rows, channels = layer.weight.shape[:2]
        self.weight_quantizer = Quantizer(weight_bits, segments, rows, transforms)
        self.input_quantizer = None
        if input_bits is not None:
            self.input_quantizer = Quantizer(input_bits, segments, transforms=transforms)
        self.alpha: Tensor | None = None
        self._base: Tensor | None = None
        self.is_decided = False
        self.register_buffer("codes", None)
        self.register_buffer("smooth", layer.weight.new_ones(channels) if SMOOTH in transforms else None)

    @property
    def channel_sizes(self) -> tuple[int, ...]:
        """Sizes of the input-channel segments, each with a grid; all channels where there is one."""
        sizes = self.weight_quantizer.segments
        return sizes if len(sizes) > 1 else (self.weight.shape[1],)

    def operation(self, x: Tensor, weight: Tensor) -> Tensor:
        """The linear map itself."""
        raise TypeError("a QuantizedLayer is a QuantizedConv2d or a QuantizedLinear")

    def quantize_input(self, x: Tensor) -> Tensor:
        """The input, smoothed and on its grid, if it is and has one."""
        x = x if self.smooth is None else x / self._by_channel(self.smooth)
        return x if self.input_quantizer is None else self.input_quantizer(x)

    def _by_channel(self, smooth: Float[Tensor, " channels"]) -> Float[Tensor, " channels *ones"]:
        """Factors of channels, shaped to broadcast against an input as well as against the weight."""
        return smooth.reshape(-1, *[1] * (self.weight.dim() - 2))

    @property
    def unsmoothed_weight(self) -> Float[Tensor, "..."]:
        """The weight that an input is multiplied with which nothing has divided."""
        weight = self.weight.detach()
        return weight if self.smooth is None else weight / self._by_channel(self.smooth)

    @property
    def smoothing(self) -> Int8[Tensor, " channels"] | None:
        """The exponents of 2 of a smoothed layer's factors."""
        if self.smooth is None:
            return None
        return (torch.frexp(self.smooth.float()).exponent - 1).to(torch.int8)

    def set_smoothing(self, exponents: Int8[Tensor, " channels"]) -> None:
        """Moves powers of two from the input's channels into the weight's, which has no codes yet.

        What the layer computes in floating point stays as it is, bit for bit.

        Raises:
            ValueError: the layer is not smoothed, or has other channels.
        """
        if self.smooth is None or exponents.shape != self.smooth.shape:
            raise ValueError(
                f"{len(exponents)} factors do not fit a layer of weight {tuple(self.weight.shape)}"
            )
        unsmoothed = self.unsmoothed_weight
        self.smooth = self.smooth.new_tensor([2.0**exponent for exponent in exponents.tolist()])
        self.weight.data = unsmoothed * self._by_channel(self.smooth)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The layer's output.

        Raises:
            EdadmError: the input is on another device than the layer, of another type, or of another width.
        """
        self._refuse_unfitting(x)
        weight = self.weight if self.alpha is None else self.soft_weight()
        return self.operation(self.quantize_input(x), weight)

    def _refuse_unfitting(self, x: Tensor) -> None:
        refuse_scattered(x, self.weight)
        if x.dtype != self.weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise EdadmError(
                f"a quantized network in {self.weight.dtype} was given {x.dtype}; cast the network or its "
                "inputs with .to(dtype)"
            )
        groups = getattr(self, "groups", 1)
        refuse_other_channels(x, 1 if self.weight.dim() == 4 else -1, self.weight.shape[1] * groups)

    def soft_weight(self) -> Float[Tensor, "..."]:
        """The weight with learned fractional rounding, differentiable in `alpha`."""
        assert self.alpha is not None and self._base is not None
        grid = self.weight_quantizer
        return soft_weight(self._base, self.alpha, grid.scale, grid.zero_point, grid.bits, grid.segments)

    def start_rounding(self) -> Float[Tensor, "..."]:
        """Makes rounding learnable; returns its parameter, which leaves the weight in the grid as it is."""
        scale, zero_point = self.weight_quantizer.grid(self.weight.dim())
        ratio = self.weight.detach() / scale
        self._base = ratio.floor() + zero_point
        self.alpha = initial_alpha(ratio).requires_grad_(True)
        return self.alpha

    def harden(self) -> None:
        """Ends learning: fractions become integers."""
        assert self.alpha is not None and self._base is not None
        codes = hard_codes(self._base, self.alpha.detach(), self.weight_quantizer.bits)
        self.alpha, self._base = None, None
        self.set_codes(codes.to(torch.uint8))

    def nearest_codes(self) -> UInt8[Tensor, "..."]:
        """The weight's codes by rounding to nearest."""
        return self.weight_quantizer.codes(self.weight).to(torch.uint8)

    def set_codes(self, codes: UInt8[Tensor, "..."]) -> None:
        """Folds integer codes: from now on `weight` is their value, in the memory layout the weight had.

        The last bits of a convolution depend on the layout, and codes from a file come without it.
        """
        self.codes = torch.empty_like(self.weight, dtype=torch.uint8).copy_(codes)
        self.weight.data = self.weight_quantizer.values(self.codes)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedLayer:
        """A cast rounds the values of codes afresh, so that one to half precision and back loses nothing."""
        before = self.weight.dtype
        super()._apply(fn, recurse)
        if self.weight.dtype != before:
            self.refold()
        return self

    def refold(self) -> None:
        """Makes the weight the value of the layer's codes again, in its own type, if it has codes."""
        if self.codes is not None:
            self.weight.data = self.weight_quantizer.values(self.codes).to(self.weight.dtype)


class QuantizedConv2d(QuantizedLayer):
    """See `QuantizedLayer`; the input is (n, c, h, w)."""

    def __init__(
        self,
        layer: nn.Conv2d,
        weight_bits: int,
        input_bits: int | None,
        segments: tuple[int, ...],
        transforms: tuple[str, ...] = (),
    ):
        super().__init__(layer, weight_bits, input_bits, segments, transforms)
        self.stride, self.padding, self.dilation, self.groups = (
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )

    def operation(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class QuantizedLinear(QuantizedLayer):
    """See `QuantizedLayer`; the input is (..., features)."""

    @property
    def in_features(self) -> int:
        """Features of the input, as `nn.Linear` names them: diffusers' pipelines read it."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """Features of the output, as `nn.Linear` names them."""
        return self.weight.shape[0]

    def operation(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight, self.bias)
