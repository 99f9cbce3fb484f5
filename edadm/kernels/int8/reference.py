"""The meaning of the integer operations in plain PyTorch: exact sums of int8 products, and epilogues.

Activations are int8 numbers with the channel last (NHWC): codes of an unsigned grid less 128. Weights are
signed integers, output channels first and input channels last (OHWI).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int8, Int32
from torch import Tensor
from torch.nn import functional as F


def quantize(
    x: Float[Tensor, "*s"], scale: Float[Tensor, "..."], low: float, high: float, shift: int
) -> Int8[Tensor, "*s"]:
    """The int8 numbers of an activation on its grid, the simulated model's codes less 128.

    That is `clamp(round(x / scale), low, high) + shift`.

    Args:
        x: of any floating-point type; divided in fp32.
        scale: the grid's, or that times a factor of each channel.
        low: smallest integer of the grid, minus its zero point.
        high: largest, likewise.
        shift: zero point less 128; the int8 number that stands for 0.
    """
    return torch.round(x.float() / scale).clamp(low, high).add(shift).to(torch.int8)


def sums(
    x: Int8[Tensor, "n h w c"],
    weight: Int8[Tensor, "o kh kw c"],
    stride: int = 1,
    padding: int = 0,
    zero: int = 0,
) -> Int32[Tensor, "n p q o"]:
    """Exact int32 sums of a convolution whose padding holds the number `zero`.

    In fp64, which adds integers below 2^53 exactly, since PyTorch convolves no integers; at most c * kh * kw
    * 2^14, far below 2^31. Rounded, since a GPU may transform instead of adding, which leaves fractions.
    """
    padded = F.pad(x.double(), (0, 0, padding, padding, padding, padding), value=float(zero))
    products = F.conv2d(padded.permute(0, 3, 1, 2), weight.double().permute(0, 3, 1, 2), stride=stride)
    return products.permute(0, 2, 3, 1).round().to(torch.int32).contiguous()


def convolution(
    x: Int8[Tensor, "n h w c"],
    weight: Int8[Tensor, "o kh kw c"],
    scale: Float[Tensor, " o"],
    offset: Float[Tensor, " o"],
    residual: Float[Tensor, "n p q o"] | None,
    stride: int,
    padding: int,
    zero: int,
    dtype: torch.dtype,
) -> Float[Tensor, "n p q o"]:
    """The convolution `sums * scale + offset + residual`, computed in fp32 and rounded once, to `dtype`.

    A linear layer is a 1x1 convolution.

    Args:
        x: numbers of the input.
        weight: signed integers.
        scale: per output channel, input scale times weight scale.
        offset: per output channel: the bias, and what a zero point other than 128 makes up.
        residual: added to the result; also the product of the other segment of a split input.
        stride: of both directions.
        padding: on all sides.
        zero: the number in the padding.
        dtype: of the result.
    """
    result = sums(x, weight, stride, padding, zero).float() * scale + offset
    return (result if residual is None else result + residual.float()).to(dtype)


def geglu(
    x: Int8[Tensor, "rows channels"],
    weight: Int8[Tensor, "both channels"],
    scale: Float[Tensor, " both"],
    offset: Float[Tensor, " both"],
    grid: Float[Tensor, ""],
    low: float,
    high: float,
    shift: int,
) -> Int8[Tensor, "rows half"]:
    """The int8 numbers of `value * gelu(gate)` on the next layer's grid, all in fp32.

    Value and gate are the halves of a linear layer's result.

    Args:
        x: numbers of the input.
        weight: signed integers of the linear layer.
        scale: per output channel, see `convolution`.
        offset: likewise.
        grid: scale of the next layer's input, see `quantize`.
        low: see `quantize`.
        high: see `quantize`.
        shift: see `quantize`.
    """
    result = convolution(x[:, None, None], weight[:, None, None], scale, offset, None, 1, 0, 0, torch.float32)
    value, gate = result.reshape(len(x), -1).chunk(2, -1)
    return quantize(value * F.gelu(gate), grid, low, high, shift)


def normalised(
    x: Float[Tensor, "n h w b"],
    skip: Float[Tensor, "n h w s"] | None,
    added: Float[Tensor, "n c"] | None,
    weight: Float[Tensor, "m c"],
    bias: Float[Tensor, "m c"],
    groups: int,
    eps: float,
    silu: bool,
    grids: Float[Tensor, "g 4"],
    shortcut_grids: Float[Tensor, "parts 4"] | None = None,
    smooth: Float[Tensor, " c"] | None = None,
    shortcut_smooth: Float[Tensor, " c"] | None = None,
) -> tuple[Int8[Tensor, "g n h w c"], Tensor, Tensor]:
    """The int8 numbers of a group normalisation on the grid of each layer that follows, in fp32 throughout.

    Args:
        x: of any floating-point type.
        skip: further channels behind those of `x`, if any.
        added: to all pixels of an image before it is normalised: the time embedding.
        weight: per channel, for all images or for each.
        bias: likewise.
        groups: of channels, which have a mean and a variance together.
        eps: added to the variance.
        silu: whether SiLU follows.
        grids: scale, low, high and shift of the input of each layer, see `quantize`.
        shortcut_grids: likewise of `x` and, if there is one, of `skip`, which a shortcut reads as they are.
        smooth: powers of two that the channels are divided by behind SiLU, where the layers are smoothed.
        shortcut_smooth: likewise of the channels of `x` and `skip`.

    Returns:
        Numbers of the normalisation on each grid; numbers of `x` itself and of `skip`, (0,) where there are
        none.
    """
    y = (x if skip is None else torch.cat([x, skip], -1)).float()
    y = y if added is None else y + added.float()[:, None, None]
    y = F.group_norm(y.permute(0, 3, 1, 2), groups, eps=eps).permute(0, 2, 3, 1)
    y = y * weight.float()[:, None, None] + bias.float()[:, None, None]
    y = F.silu(y) if silu else y
    itself, other = (
        x.new_empty(0, dtype=torch.int8) for _ in range(2)
    )  # results of an operation share no memory
    if shortcut_grids is not None:
        own, others = (None, None) if shortcut_smooth is None else shortcut_smooth.tensor_split([x.shape[-1]])
        itself, other = (
            _on_grid(x.float(), shortcut_grids[0], own),
            other if skip is None else _on_grid(skip.float(), shortcut_grids[1], others),
        )
    return torch.stack([_on_grid(y, grid, smooth) for grid in grids]), itself, other


def layer_normalised(
    x: Float[Tensor, "rows c"],
    weight: Float[Tensor, "1 c"],
    bias: Float[Tensor, "1 c"],
    eps: float,
    grids: Float[Tensor, "g 4"],
) -> Int8[Tensor, "g rows c"]:
    """The int8 numbers of a layer normalisation on the grid of each layer that follows, in fp32 throughout.

    Args:
        x: of any floating-point type.
        weight: per channel.
        bias: likewise.
        eps: added to a row's variance.
        grids: see `normalised`.
    """
    y = F.layer_norm(x.float(), x.shape[1:], weight[0], bias[0], eps)
    return torch.stack([_on_grid(y, grid) for grid in grids])


def _on_grid(
    x: Float[Tensor, "*n c"], grid: Float[Tensor, "4"], smooth: Float[Tensor, " c"] | None = None
) -> Int8[Tensor, "*n c"]:
    """The int8 numbers of values on a grid of scale, low, high and shift, perhaps over powers of two."""
    divisor = grid[0] if smooth is None else grid[0] * smooth
    return quantize(x, divisor, grid[1].item(), grid[2].item(), int(grid[3]))
