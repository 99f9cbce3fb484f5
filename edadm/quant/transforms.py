"""Transforms of a product's operands that leave the product as it is, and make both easier to quantize.

Smoothing (SmoothQuant, arXiv 2211.10438, eq. 4) divides each input channel j of a layer by a factor and
multiplies the weight's channel by it. The factor is `max|X_j|^a / max|W_j|^(1-a)`, here rounded to the
nearest power of two (as factors of layer normalisation in arXiv 2111.13824). So every division and
multiplication by it is exact in fp32 and bf16, whatever it is folded into, as long as numbers stay far from
the ends of these types. fp16 has 5 bits of exponent: there a number divided by a large factor loses digits.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int8
from torch import Tensor

LARGEST_EXPONENT = 14  # factors are normal numbers of half precision, too


def smoothing_exponents(
    inputs: Float[Tensor, " channels"], weights: Float[Tensor, " channels"], strength: float
) -> Int8[Tensor, " channels"]:
    """The exponents of 2 of smoothing factors; 0 for channels without any input or weight.

    Args:
        inputs: largest magnitude of each input channel over the calibration rows.
        weights: largest magnitude of the weights that a channel is multiplied with.
        strength: a, in [0, 1]: how much of the inputs' differences goes into the weights.
    """
    exponents = strength * inputs.double().log2() - (1 - strength) * weights.double().log2()
    exponents = torch.where((inputs > 0) & (weights > 0), exponents, 0.0)
    return exponents.round().clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT).to(torch.int8)
