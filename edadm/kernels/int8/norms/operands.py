"""The operands and results of a group normalisation to int8, and the numbers that choose its kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from edadm.kernels.int8.norms.launch import GroupNorm


@dataclass(frozen=True)
class GroupNormOperands:
    """Contiguous operands of a group normalisation; see `edadm.kernels.int8.reference.normalised`.

    Attributes:
        out: room for the numbers of each grid.
        x_out: room for the numbers of `x` itself, if a shortcut reads them.
        skip_out: likewise of `skip`.
    """

    x: Float[Tensor, "n h w b"]
    skip: Float[Tensor, "n h w s"] | None
    added: Float[Tensor, "n c"] | None
    weight: Float[Tensor, "m c"]
    bias: Float[Tensor, "m c"]
    groups: int
    eps: float
    silu: bool
    grids: Float[Tensor, "g 4"]
    shortcut_grids: Float[Tensor, "parts 4"] | None
    smooth: Float[Tensor, " c"] | None
    shortcut_smooth: Float[Tensor, " c"] | None
    out: Int8[Tensor, "g n h w c"]
    x_out: Tensor
    skip_out: Tensor

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "n h w b"],
        skip: Float[Tensor, "n h w s"] | None,
        added: Float[Tensor, "n c"] | None,
        weight: Float[Tensor, "m c"],
        bias: Float[Tensor, "m c"],
        groups: int,
        eps: float,
        silu: bool,
        grids: Float[Tensor, "g 4"],
        shortcut_grids: Float[Tensor, "parts 4"] | None,
        smooth: Float[Tensor, " c"] | None,
        shortcut_smooth: Float[Tensor, " c"] | None,
    ) -> GroupNormOperands:
        """The operands in memory as kernels want them, and room for results."""
        device, shape = x.device, (len(grids), *x.shape[:3], weight.shape[1])
        out = torch.empty(shape, dtype=torch.int8, device=device)
        shapes = (
            torch.Size([0]) if shortcut_grids is None or part is None else part.shape for part in (x, skip)
        )
        results = out, *(torch.empty(shape, dtype=torch.int8, device=device) for shape in shapes)
        skip, added = (None if part is None else part.contiguous() for part in (skip, added))
        affine = weight.contiguous(), bias.contiguous()
        given = x.contiguous(), skip, added, *affine, groups, eps, silu, grids
        return cls(*given, shortcut_grids, smooth, shortcut_smooth, *results)

    @property
    def images(self) -> int:
        """Images in the batch."""
        return len(self.x)

    @property
    def pixels(self) -> int:
        """Pixels of an image."""
        return self.x.shape[1] * self.x.shape[2]

    @property
    def channels(self) -> int:
        """Channels of both inputs."""
        return self.weight.shape[1]

    @property
    def before(self) -> int:
        """Channels of the first input."""
        return self.x.shape[3]

    @property
    def problem(self) -> GroupNorm:
        """The normalisation as far as the choice of a kernel depends on it."""
        aligned = all(part.data_ptr() % 16 == 0 for part in self.sources)
        shape = self.images, self.pixels, self.channels
        return GroupNorm(*shape, self.groups, self.before, self.x.element_size(), aligned)

    @property
    def sources(self) -> tuple[Tensor, Tensor]:
        """The inputs of a kernel; without a second one, the first takes its place."""
        return self.x, self.x if self.skip is None else self.skip

    @property
    def vectors(self) -> tuple[Tensor | None, ...]:
        """The further arguments of a kernel; others take the place of those that are not there.

        But None says that nothing is smoothed, so that the kernel is compiled without.
        """
        added = self.x if self.added is None else self.added
        shortcut = self.grids if self.shortcut_grids is None else self.shortcut_grids
        smoothing = self.smooth, self.shortcut_smooth
        return added, self.weight, self.bias, self.grids, shortcut, *smoothing

    @property
    def results(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a kernel fills."""
        return self.out, self.x_out, self.skip_out

    @property
    def extents(self) -> tuple[int, int, int, float, int]:
        """Channels, those of the first input, stride of the affine map, eps, and elements of a grid."""
        stride = 0 if len(self.weight) == 1 else self.channels
        return self.channels, self.before, stride, self.eps, self.out[0].numel()

    @property
    def flags(self) -> dict[str, int]:
        """Compile-time constants that say what a kernel does."""
        return {
            "SKIPS": self.skip is not None,
            "ADDS": self.added is not None,
            "SILU": self.silu,
            "GRIDS": len(self.grids),
            "SHORTCUT": self.shortcut_grids is not None,
        }
