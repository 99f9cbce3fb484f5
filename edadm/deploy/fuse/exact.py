"""Tensors of an integer network that stay fp32 when the network is cast to another type."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from edadm.deploy.fuse.segment import IntegerSegment


class Exact(nn.Module):
    """A module whose own floating-point buffers move with the network, and keep their type and values."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Exact:
        exact = {
            name: tensor
            for name, tensor in self._buffers.items()
            if tensor is not None and tensor.is_floating_point()
        }
        super()._apply(fn, recurse)
        for name, tensor in exact.items():
            setattr(self, name, tensor.to(getattr(self, name).device))
        return self


class Grids(Exact):
    """The grids of layers' inputs, (layers, 4): scale, smallest and largest integer, and shift of each.

    Args:
        segments: of the layers.

    Attributes:
        smooth: the factors that the inputs' channels are divided by, one input after the other, if they are.
    """

    values: Tensor
    smooth: Tensor | None

    def __init__(self, segments: Iterable[IntegerSegment]):
        super().__init__()
        known = list(segments)
        self.register_buffer("values", torch.stack([segment.grid for segment in known]))
        factors = [segment.smooth for segment in known if segment.smooth is not None]
        self.register_buffer("smooth", torch.cat(factors) if factors else None)


class Affine(Exact):
    """The weight and bias of a normalisation, (1, c) each in fp32, and the number that it adds to a variance.

    Args:
        norm: group or layer normalisation.
        smooth: powers of two that its output is divided by, the smoothing of the layers that it feeds; None
            divides nothing.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: nn.GroupNorm | nn.LayerNorm, smooth: Float[Tensor, " c"] | None = None):
        super().__init__()
        self.eps, self.groups = norm.eps, norm.num_groups if isinstance(norm, nn.GroupNorm) else 1
        affine = norm.weight.detach().float()[None], norm.bias.detach().float()[None]
        weight, bias = affine if smooth is None else (values / smooth for values in affine)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    @property
    def values(self) -> tuple[Float[Tensor, "1 c"], Float[Tensor, "1 c"]]:
        """The normalisation's weight and bias."""
        return self.weight, self.bias
