"""The U-Net that a file holds, float or quantized, the backend that computes it, and its correction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edadm.errors import EdadmError


def open_unet(architecture: Any, weights: Path, device: Any) -> Any:
    """A float or a quantized U-Net, whichever the file holds; a quantized one is simulated."""
    from edadm.deploy.checkpoint import is_quantized, load_quantized
    from edadm.stages.inputs.model import open_float

    if is_quantized(weights):
        return load_quantized(weights, device)
    return open_float(architecture, weights, device)


def backend_meant(weights: Path, backend: str, device: Any, batch: int) -> str:
    """The backend that a name means: itself, or for `auto` the fastest exact one, as measured once.

    Raises:
        EdadmError: `auto` is asked for floating-point weights.
    """
    from edadm.config.backends import FASTEST
    from edadm.deploy.backends.fastest import meant
    from edadm.deploy.checkpoint import load_quantized

    if backend != FASTEST:
        return backend
    _refuse_floats(weights, f"backend '{FASTEST}' needs")
    return meant(backend, load_quantized(weights, device), batch=batch)


def _refuse_floats(weights: Path, who_needs: str) -> None:
    from edadm.deploy.checkpoint import is_quantized

    if not is_quantized(weights):
        raise EdadmError(
            f"{weights} holds floating-point weights; {who_needs} a quantized checkpoint, made by `edadm "
            "reconstruct`"
        )


def open_network(architecture: Any, weights: Path, device: Any, backend: str) -> Any:
    """A float or a quantized U-Net, the latter computed by a backend.

    Raises:
        EdadmError: the backend wants quantized weights, and these are not, or does not run their schemes.
    """
    import torch

    from edadm.config.backends import DEFAULT, backend_label, resolved
    from edadm.deploy.backends.base import implementation, lower
    from edadm.deploy.checkpoint import load_quantized

    if backend == DEFAULT:
        return open_unet(architecture, weights, device)
    _refuse_floats(weights, f"{backend_label(backend)} need")
    implementation(resolved(backend, device.type))  # what it lacks is said before the file is read
    return lower(load_quantized(weights, device), torch.float32, backend)


def open_correction(model: Any, weights: Path, device: Any) -> Any:
    """The correction that a checkpoint holds for the preset's sampler, or None.

    Raises:
        EdadmError: it was fitted for another sampler, noise schedule, prediction or guidance.
    """
    from edadm.deploy.checkpoint import is_quantized, read_correction
    from edadm.sampling.schedule import sampler_timesteps
    from edadm.stages.inputs.provenance import refuse_other_sampling

    correction = read_correction(weights) if is_quantized(weights) else None
    if correction is None:
        return None
    refuse_other_sampling(weights, model)
    correction.refuse_other_timesteps(sampler_timesteps(model.sampler, model.schedule))
    return correction.on(device)
