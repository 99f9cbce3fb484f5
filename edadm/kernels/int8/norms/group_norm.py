"""Group normalisation on a GPU, from floating point to int8 on the grids of the layers that follow.

What is added before it, and SiLU after it, are part of it.

Where some groups of an image fit shared memory, a program reads them once (`group_norm_resident`). Otherwise
programs share an image (`group_norm_parts`). `edadm.kernels.int8.reference.normalised` says what it means; a
value is multiplied by a grid's inverse here instead of divided, so that one between two numbers may become
the other one.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from edadm.kernels.dispatch import has_kernels, refuse_other_types
from edadm.kernels.int8 import reference
from edadm.kernels.int8.device import Device
from edadm.kernels.int8.norms import group_norm_parts, group_norm_resident
from edadm.kernels.int8.norms.launch import choose_group_norm
from edadm.kernels.int8.norms.operands import GroupNormOperands


def triton_normalised(
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
    may_reside: bool = True,
) -> tuple[Int8[Tensor, "g n h w c"], Tensor, Tensor]:
    """The group normalisation by kernels; see `edadm.kernels.int8.reference.normalised` for its arguments.

    Args:
        may_reside: see `edadm.kernels.int8.norms.launch.choose_group_norm`.
    """
    inputs = x, skip, added, weight, bias
    smoothing = smooth, shortcut_smooth
    operands = GroupNormOperands.of(*inputs, groups, eps, silu, grids, shortcut_grids, *smoothing)
    launch = choose_group_norm(operands.problem, Device.of(x.device), may_reside)
    if launch.kernel == "group_norm_resident":
        group_norm_resident.run(operands, launch)
    else:
        group_norm_parts.run(operands, launch)
    return operands.results


_SCHEMA = (
    "(Tensor x, Tensor? skip, Tensor? added, Tensor weight, Tensor bias, SymInt groups, float eps, "
    "bool silu, Tensor grids, Tensor? shortcut_grids, Tensor? smooth=None, Tensor? shortcut_smooth=None) "
    "-> (Tensor, Tensor, Tensor)"
)


@torch.library.custom_op("edadm::int8_normalised", mutates_args=(), schema=_SCHEMA)
def int8_normalised(
    x: Tensor,
    skip: Tensor | None,
    added: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    grids: Tensor,
    shortcut_grids: Tensor | None,
    smooth: Tensor | None = None,
    shortcut_smooth: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`reference.normalised`, by the kernel on a GPU and by its plain meaning elsewhere."""
    exact = grids, shortcut_grids, smooth, shortcut_smooth
    refuse_other_types(torch.float32, *exact)
    return (triton_normalised if has_kernels(x, skip, added, weight, bias, *exact) else reference.normalised)(
        x, skip, added, weight, bias, groups, eps, silu, grids, shortcut_grids, smooth, shortcut_smooth
    )


@int8_normalised.register_fake
def _(
    x: Tensor,
    skip: Tensor | None,
    added: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    grids: Tensor,
    shortcut_grids: Tensor | None,
    smooth: Tensor | None = None,
    shortcut_smooth: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes and types of the results, for the compiler."""
    out = x.new_empty((len(grids), *x.shape[:3], weight.shape[1]), dtype=torch.int8)
    itself, other = (
        x.new_empty((0,) if shortcut_grids is None or part is None else part.shape, dtype=torch.int8)
        for part in (x, skip)
    )
    return out, itself, other
