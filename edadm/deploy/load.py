"""From a quantized checkpoint to a network that any diffusers pipeline takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from edadm.deploy.checkpoint import load_quantized, read_metadata
from edadm.deploy.diffusers import WEIGHTS, QuantizedUNet, as_diffusers_model
from edadm.devices import device_named
from edadm.errors import EdadmError
from edadm.networks.unet.base import UNet
from edadm.networks.weights import CheckpointError
from edadm.nn.sound import pass_on_what_is_not_finite

Backend = Callable[[UNet, torch.dtype], UNet]


def _simulated(unet: UNet, dtype: torch.dtype) -> UNet:
    """Floating-point arithmetic on the integer grids."""
    pass_on_what_is_not_finite(unet)
    return unet if dtype == torch.float32 else unet.to(dtype)


def _integer(unet: UNet, dtype: torch.dtype) -> UNet:
    """Integer kernels where there are any for the device."""
    from edadm.deploy.backends.base import lower

    return lower(unet, dtype)


BACKENDS: dict[str, Backend] = {"simulated": _simulated, "integer": _integer}


def load(
    path: Path | str,
    device: torch.device | str | None = None,
    backend: str = "simulated",
    dtype: torch.dtype = torch.float32,
) -> QuantizedUNet:
    """The quantized U-Net in a file, as a diffusers model for `pipe.unet`: in inference mode, channels last, weights frozen.

    Built on an empty skeleton: no forward pass, no other file, no network.

    Args:
        path: of `edadm reconstruct` or `save_pretrained`; a folder of the latter, or of a pipeline with its
            `unet`, stands for the file in it.
        device: where to put it; the CPU if None. A GPU with a number becomes the current device of the
            process.
        backend: `simulated`, floating-point arithmetic on the integer grids, or `integer`, kernels that
            compute with the codes.
        dtype: of everything that is not quantized, and of the simulated arithmetic. Grids are fp32 always.

    Raises:
        EdadmError: no such backend or device; absent, damaged, foreign or newer file.
    """
    if backend not in BACKENDS:
        raise EdadmError(f"there is no backend '{backend}'; known are {', '.join(BACKENDS)}")
    where = device_named(device or "cpu")
    file = checkpoint_in(Path(path))
    unet = load_quantized(file, where)
    return as_diffusers_model(BACKENDS[backend](unet, dtype), read_metadata(file), backend)


def checkpoint_in(path: Path) -> Path:
    """The checkpoint that a path stands for.

    Raises:
        CheckpointError: a folder without one.
    """
    if not path.is_dir():
        return path
    for file in (path / WEIGHTS, path / "unet" / WEIGHTS):
        if file.is_file():
            return file
    raise CheckpointError(
        f"the folder {path} holds no {WEIGHTS}; name the file, or a folder that `save_pretrained` wrote"
    )
