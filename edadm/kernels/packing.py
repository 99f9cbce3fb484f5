"""4-bit codes, two per byte."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor


def pack4(codes: UInt8[Tensor, "*s"]) -> UInt8[Tensor, " bytes"]:
    """Codes in [0, 15], packed two per byte in row-major order.

    The earlier of two lies in the low half of its byte, an odd end is padded with 0.
    """
    flat = codes.flatten()
    if flat.numel() % 2:
        flat = torch.cat([flat, flat.new_zeros(1)])
    return flat[0::2] | (flat[1::2] << 4)


def unpack4(packed: UInt8[Tensor, " bytes"], shape: tuple[int, ...]) -> UInt8[Tensor, "..."]:
    """The inverse of `pack4` for codes of `shape`."""
    codes = torch.stack([packed & 15, packed >> 4], dim=1).flatten()
    return codes[: torch.Size(shape).numel()].reshape(shape)
