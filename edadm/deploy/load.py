"""From a quantized checkpoint to a network that any diffusers pipeline takes."""

from __future__ import annotations

from pathlib import Path

import torch

from edadm.config.backends import DEFAULT, FASTEST, resolved
from edadm.deploy.backends.base import implementation, lower
from edadm.deploy.backends.fastest import meant
from edadm.deploy.checkpoint import load_quantized, read_metadata, say_that_none_applies
from edadm.deploy.diffusers import WEIGHTS, QuantizedUNet, as_diffusers_model
from edadm.devices.named import device_named
from edadm.errors import EdadmError
from edadm.networks.weights import CheckpointError


def load(
    path: Path | str,
    device: torch.device | str | None = None,
    backend: str = DEFAULT,
    dtype: torch.dtype | str = torch.float32,
    batch_size: int = 1,
) -> QuantizedUNet:
    """The quantized U-Net in a file, as a diffusers model for `pipe.unet`.

    It is in inference mode, channels last, its weights frozen.

    Built on an empty skeleton: no forward pass, no other file, no network.

    Args:
        path: of `edadm reconstruct` or `save_pretrained`; a folder of the latter, or of a pipeline with its
            `unet`, stands for the file in it.
        device: where to put it; the CPU if None. A GPU with a number becomes the current device of the
            process.
        backend: `simulated`, floating-point arithmetic on the integer grids; `integer`, kernels of the device
            that compute with the codes; the name of one of `edadm.config.backends`, such as `onednn`; or
            `auto`, the fastest exact one of this machine, which is measured the first time.
        dtype: of everything that is not quantized, and of the simulated arithmetic, or its name. Grids are
            fp32 always.
        batch_size: rows of the calls for which `auto` looks for the fastest.

    Raises:
        EdadmError: no such backend, device or type; absent, damaged, foreign or newer file.
    """
    precision = dtype_named(dtype)
    where = device_named(device or "cpu")
    if backend != FASTEST:
        implementation(resolved(backend, where.type))  # what it lacks is said before a file is read
    file = checkpoint_in(Path(path))
    unet = load_quantized(file, where)
    say_that_none_applies(file)
    name = meant(backend, unet, precision, batch_size)
    return as_diffusers_model(lower(unet, precision, name), read_metadata(file), name)


def dtype_named(name: torch.dtype | str | None) -> torch.dtype:
    """A floating-point type, which may be told by name; fp32 if None or `auto`.

    Raises:
        EdadmError: there is no such type.
    """
    if name in (None, "auto"):
        return torch.float32
    found = getattr(torch, name.removeprefix("torch."), None) if isinstance(name, str) else name
    if not isinstance(found, torch.dtype) or not found.is_floating_point or found.itemsize == 1:
        raise EdadmError(f"a network cannot be in {name!r}; set dtype to torch.float32, float16 or bfloat16")
    return found


def checkpoint_in(path: Path) -> Path:
    """The checkpoint that a path stands for.

    Raises:
        CheckpointError: a folder without one.
    """
    if not path.is_dir():
        return path
    for file in (path / WEIGHTS, path / "unet" / WEIGHTS, path / "transformer" / WEIGHTS):
        if file.is_file():
            return file
    raise CheckpointError(
        f"the folder {path} holds no {WEIGHTS}; name the file, or a folder that `save_pretrained` wrote"
    )
