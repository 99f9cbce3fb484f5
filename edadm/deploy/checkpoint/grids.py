"""The grids of a network's quantizers, as files of ranges and checkpoints hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from edadm.deploy.checkpoint.network import quantizers_of
from edadm.networks.weights import CheckpointError
from edadm.nn.sound import grid_flaws


def grids(unet: nn.Module) -> dict[str, Tensor]:
    """Scales (fp32) and zero points (uint8) of all quantizers by name.

    Raises:
        EdadmError: a grid is none.
    """
    refuse_flaws(
        grid_flaws(unet),
        "nothing was written; look for numbers that are not finite in the weights and the calibration rows",
    )
    tensors = {}
    for name, quantizer in quantizers_of(unet).items():
        tensors[f"{name}.scale"] = quantizer.scale.float().contiguous()
        tensors[f"{name}.zero_point"] = quantizer.zero_point.to(torch.uint8).contiguous()
    return tensors


def set_grids(unet: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts the grids of a file into a quantized U-Net.

    Raises:
        CheckpointError: a grid is missing, of another shape, or none.
    """
    for name, quantizer in quantizers_of(unet).items():
        try:
            quantizer.set_grid(tensors[f"{name}.scale"], tensors[f"{name}.zero_point"].float())
        except KeyError as error:
            raise CheckpointError(
                f"the file lacks the grid {error}; it was made for other bits or another network"
            ) from None
        except ValueError as error:
            raise CheckpointError(
                f"the grid of {name} does not fit ({error}); it was made for other bits or another network"
            ) from None
    refuse_flaws(grid_flaws(unet), "make the file again")


def refuse_flaws(flaws: Iterable[str], fix: str) -> None:
    """Refuses a file or network for its first flaw, if there is one."""
    if flaw := next(iter(flaws), None):
        raise CheckpointError(f"{flaw}; {fix}")
