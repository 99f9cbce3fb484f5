"""Operations of learning: a Triton kernel in one pass over memory where there is one, else plain PyTorch.

The plain path is the meaning of each kernel. `edadm.kernels.dispatch.has_kernels` says which one runs.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edadm.kernels.dispatch import has_kernels
from edadm.kernels.learning.geometry import memory_like
from edadm.quant import affine
from edadm.quant.rounding import soft_codes
from edadm.quant.streams import Stream


def broadcast_qparams(
    values: Float[Tensor, "..."], segments: tuple[int, ...], dimensions: int, has_rows: bool
) -> Float[Tensor, "..."]:
    """Scales or zero points, (segments,) or (rows, segments), shaped to broadcast against a tensor.

    Args:
        values: of each segment.
        segments: sizes of the channel segments.
        dimensions: of the tensor.
        has_rows: whether each output channel has values of its own.
    """
    if len(segments) > 1:
        sizes = torch.tensor(segments, device=values.device)
        values = values.repeat_interleave(sizes, dim=-1, output_size=sum(segments))
        return values.reshape(*([len(values)] if has_rows else [1]), -1, *[1] * (dimensions - 2))
    return values.reshape(len(values), *[1] * (dimensions - 1)) if has_rows else values.reshape(())


def fake_quantize(
    x: Float[Tensor, "*s"],
    scale: Float[Tensor, " segments"],
    zero_point: Float[Tensor, " segments"],
    bits: int,
    segments: tuple[int, ...],
    qmin_qmax: tuple[affine.Bound, affine.Bound],
    drop: float = 0.0,
    stream: Stream | None = None,
) -> Float[Tensor, "*s"]:
    """Fake quantization of activations, differentiable in `x` and `scale`, with QDrop (arXiv 2203.05740).

    Args:
        x: activations; axis 1 is divided where there are two segments.
        scale: of each segment.
        zero_point: of each segment.
        bits: width of the grid.
        segments: sizes of the channel segments.
        qmin_qmax: `affine.qmin_qmax` of the zero points, known already.
        drop: probability with which an element is spared, in [0, 1).
        stream: draws what is spared; none spares nothing.
    """
    if has_kernels(x, scale, zero_point):
        from edadm.kernels.learning.fake_quantize import FakeQuantize

        return FakeQuantize.apply(x, scale, zero_point, bits, segments, drop, stream)
    if x.dtype in (torch.bfloat16, torch.float16):  # codes are those of fp32 division, as in the kernel
        return fake_quantize(x.float(), scale, zero_point, bits, segments, qmin_qmax, drop, stream).to(
            x.dtype
        )
    low, high = (
        broadcast_qparams(limit, segments, x.dim(), False) if isinstance(limit, Tensor) else limit
        for limit in qmin_qmax
    )
    if torch.compiler.is_compiling():
        step = broadcast_qparams(scale, segments, x.dim(), False)
        return torch.clamp((x / step).round(), low, high) * step  # type: ignore[arg-type]
    quantized = affine.fake_quantize(x, broadcast_qparams(scale, segments, x.dim(), False), low, high)
    if stream is None or drop == 0:
        return quantized
    x = memory_like(x)
    spared = stream.below(drop, like=x).to(x.dtype)
    return torch.lerp(quantized, x, spared)  # exact at 0 and 1, and faster than `where`


def soft_weight(
    base: Float[Tensor, " rows *s"],
    alpha: Float[Tensor, " rows *s"],
    scale: Float[Tensor, "rows segments"],
    zero_point: Float[Tensor, "rows segments"],
    bits: int,
    segments: tuple[int, ...],
) -> Float[Tensor, " rows *s"]:
    """The values of a weight with learned fractional rounding, differentiable in `alpha`.

    See `edadm.quant.rounding.soft_codes`.
    """
    if has_kernels(alpha):
        from edadm.kernels.learning.soft_weight import SoftWeight

        return SoftWeight.apply(base, alpha, scale, zero_point, bits, segments)
    grid = (broadcast_qparams(values, segments, alpha.dim(), True) for values in (scale, zero_point))
    return affine.dequantize(soft_codes(base, alpha, bits), *grid)


def mixed_rows(
    a: Float[Tensor, " n *s"],
    b: Float[Tensor, " n *s"],
    rows: Int[Tensor, " k"],
    probability: float,
    stream: Stream,
) -> Float[Tensor, " k *s"]:
    """Rows whose elements come from `a` with the given probability, else from `b` (method, 4.3, step 2)."""
    if probability in (0.0, 1.0):
        return (a if probability else b)[rows]
    if has_kernels(a):
        from edadm.kernels.learning.rows import mixed_rows as kernel

        return kernel(a, b, rows, probability, stream)
    first = memory_like(a[rows], a)
    return torch.lerp(b[rows], first, stream.below(probability, like=first).to(first.dtype))


def rows_error(
    output: Float[Tensor, "k c *s"], target: Float[Tensor, "n c *s"], rows: Int[Tensor, " k"]
) -> Float[Tensor, ""]:
    """The squared error against rows of `target`, summed over axis 1, else averaged (method, 4.3, step 6)."""
    if has_kernels(output):
        from edadm.kernels.learning.rows import RowsError

        return RowsError.apply(output, target, rows)
    return (output - target[rows]).square().sum(1).mean()
