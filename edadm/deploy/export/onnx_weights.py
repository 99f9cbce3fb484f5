"""Forms of a quantized weight in an ONNX file.

Not every runtime multiplies bytes exactly on every processor.

On x86 processors without VNNI, runtimes add pairs of products of uint8 activations and int8 weights in int16,
and what does not fit is cut off without a word: 255 * (100 + 60) becomes 32,767. No runtime says which
weights of a row it makes a pair, so that a row is safe if no two of its weights together can leave int16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int8, Int16, Shaped, UInt8
from torch import Tensor

Form = Literal["exact", "full", "seven", "unsigned", "whole_convolutions"]

INT16 = 2**15 - 1
NIBBLE, BYTE = 2**3, 2**7  # beyond the largest int4 and int8


@dataclass(frozen=True)
class StoredWeight:
    """A weight as it stands in a file.

    Its value is the sum of `parts`, minus the zero point, times scale and sign of each row.

    Args:
        parts: one, or two of which none can leave int16.
        scale: positive.
        sign: of rows stored negated, -1; None where there are none.
        zero_point: of uint8 weights.
    """

    parts: list[Shaped[Tensor, "rows c *s"]]
    scale: Float[Tensor, " rows"]
    sign: Float[Tensor, " rows"] | None = None
    zero_point: UInt8[Tensor, " rows"] | None = None


def stored_weight(
    weight: Int8[Tensor, "rows c *s"],
    scale: Float[Tensor, " rows"],
    largest_code: int,
    form: Form,
    int4: bool = False,
) -> StoredWeight:
    """A weight in the form that the file's target multiplies exactly, or as nearly as the form says.

    Args:
        weight: from `deploy.int_weight.signed_weight`, perhaps with negated rows.
        scale: of each row, negative where it was negated.
        largest_code: of the input grid; 0 where the input has none and nothing is multiplied in bytes.
        form: `exact` divides a weight that can leave int16 into two, `full` stores it as it is, for
            processors with VNNI, `seven` rounds it to 7 bits, and `unsigned` stores those of convolutions as
            uint8 with zero points, which OpenVINO and onnxruntime multiply in floating point (OpenVINO 2026.4
            finds no linear layer for these with AVX2 alone; they are as in `exact`), and `whole_convolutions`
            is `full` for convolutions, which onnxruntime computes in floating point, and `exact` for others.
        int4: the weight must fit into int4 instead of int8.
    """
    values = weight.to(torch.int16) * torch.where(scale < 0, -1, 1).to(torch.int16).reshape(
        -1, *[1] * (weight.dim() - 1)
    )
    scale = scale.abs()
    if form == "unsigned" and weight.dim() == 4:
        zero_point = torch.where(values.flatten(1).amax(1) >= BYTE, BYTE - 1, BYTE).to(torch.int16)
        codes = values + zero_point.reshape(-1, *[1] * (weight.dim() - 1))
        return StoredWeight([codes.to(torch.uint8)], scale, None, zero_point.to(torch.uint8))
    unsafe = saturates(values, largest_code)
    if form == "seven" and unsafe:
        return StoredWeight([(values.float() / 2).round().to(torch.int8)], scale * 2)
    divides = form in ("exact", "unsigned") or (form == "whole_convolutions" and weight.dim() == 2)
    if divides and unsafe:
        half = INT16 // largest_code // 2
        low = values.clamp(-half, half)
        return StoredWeight([low.to(torch.int8), (values - low).to(torch.int8)], scale)
    return _whole(values, scale, NIBBLE if int4 else BYTE)


def saturates(values: Int16[Tensor, "rows c *s"], largest_code: int) -> bool:
    """Whether two products of weights of one row with codes up to `largest_code` can together leave int16."""
    ordered = values.flatten(1).int().sort(dim=1).values
    least, most = ordered[:, :2].clamp(max=0).sum(1), ordered[:, -2:].clamp(min=0).sum(1)
    return bool((most * largest_code > INT16).any() or (least * largest_code < -INT16 - 1).any())


def _whole(values: Int16[Tensor, "rows c *s"], scale: Float[Tensor, " rows"], end: int) -> StoredWeight:
    """All in one part; a row that reaches `end` is negated."""
    negated = values.flatten(1).amax(1) >= end
    if not negated.any():
        return StoredWeight([values.to(torch.int8)], scale)
    sign = torch.where(negated, -1, 1)
    integers = values * sign.to(torch.int16).reshape(-1, *[1] * (values.dim() - 1))
    return StoredWeight([integers.to(torch.int8)], scale, sign.float())
