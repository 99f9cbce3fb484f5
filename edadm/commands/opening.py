"""What subcommands open before they start: presets, devices, networks, and all that a reconstruction needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edadm.errors import EdadmError


def preset_named(kind: str, text: str, config: Path | None) -> Any:
    """A preset by name, from the package or the user's file, or given as JSON."""
    from edadm.config.load import find_preset

    return find_preset(kind, text, config)


def device_named(name: str, threads: int) -> Any:
    """The torch device, after setting the number of CPU threads."""
    import torch

    from edadm.devices import device_named

    torch.set_num_threads(threads)
    return device_named(name)


def first_gpu() -> Any:
    """The first CUDA device."""
    import torch

    if not torch.cuda.is_available():
        raise EdadmError(
            "this times kernels of a CUDA GPU, and there is none here; run it on a machine that has one"
        )
    return device_named("cuda", 1)


def open_task(
    model: Any,
    widths: Any,
    settings: Any,
    unet: Path,
    calibration_set: Path,
    ranges: Path,
    where: Any,
    unit_store: Any,
) -> Any:
    """A float and a quantized network side by side, and the rows to learn from."""
    from edadm.artifacts import read_tensors
    from edadm.calibration.conditions import HELD_OUT
    from edadm.config.methods import METHODS
    from edadm.deploy.checkpoint import quantized_copy, set_grids
    from edadm.learning.task import Task, refuse_idle_patterns
    from edadm.networks.convert import load_unet
    from edadm.networks.inputs import Rows
    from edadm.networks.trace import trace_units

    network = load_unet(model.architecture, unet, where)
    quantized = quantized_copy(network, widths)
    set_grids(quantized, read_tensors(ranges, "set-ranges", device=where, kind="ranges"))
    units = trace_units(network, METHODS[settings.method].by_layer, settings.exclude)
    refuse_idle_patterns(units, settings)
    needed = ("latents", "timesteps")
    rows = read_tensors(calibration_set, "select-calibration", needed, where, "calibration")
    learned, held_out = Rows.of(rows), Rows.of(rows, HELD_OUT)
    held_out = held_out if held_out.tensors else learned[:0]
    inputs = Rows.concatenated([learned, held_out])
    return Task(network, quantized, units, inputs, len(held_out), settings, unit_store)


def within_limits(task: Any, device_memory: float | None, host_memory: float | None, progress: Path) -> Any:
    """The task with limits of memory; a killed process leaves at most an empty folder for files, which goes here."""
    import shutil

    from edadm.config.schema import Memory

    scratch = progress / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    return dataclasses.replace(task, memory=Memory(device=device_memory, host=host_memory), scratch=scratch)


def open_unet(architecture: Any, weights: Path, device: Any) -> Any:
    """A float or a quantized U-Net, whichever the file holds; a quantized one is simulated."""
    from edadm.deploy.checkpoint import is_quantized, load_quantized
    from edadm.networks.convert import load_unet

    return (
        load_quantized(weights, device) if is_quantized(weights) else load_unet(architecture, weights, device)
    )


def open_prediction(model: Any) -> Any:
    """What the preset's network predicts, and how the noise follows from it."""
    from edadm.networks.denoiser import Prediction
    from edadm.sampling.schedule import alphas_cumprod

    return Prediction(model.prediction, alphas_cumprod(model.schedule))


def open_network(architecture: Any, weights: Path, device: Any, backend: str) -> Any:
    """A float or a quantized U-Net, the latter computed by a backend."""
    import torch

    from edadm.config.backends import DEFAULT, backend_label, resolved
    from edadm.deploy.backends.base import implementation
    from edadm.deploy.checkpoint import is_quantized, load_quantized

    if backend == DEFAULT:
        return open_unet(architecture, weights, device)
    if not is_quantized(weights):
        raise EdadmError(
            f"{weights} holds floating-point weights; {backend_label(backend)} need a quantized checkpoint, "
            "made by `edadm reconstruct`"
        )
    arithmetic = implementation(resolved(backend, device.type))
    return arithmetic.lower(load_quantized(weights, device), torch.float32)


def open_condition(model: Any, weights: Path | None, images: int, device: Any) -> Any:
    """What the model is told about each of its images, or None if it takes no condition."""
    from edadm.conditions.condition import make_condition
    from edadm.networks.convert import load_condition_network

    if model.conditioning is None:
        return None
    if weights is None:
        raise EdadmError(
            "this model takes a condition; give its weights with --condition (from convert-checkpoint --part condition)"
        )
    return make_condition(load_condition_network(model, weights, device), model.conditioning, images)


def open_decoder(model: Any, weights: Path | None, device: Any) -> Any:
    """From latents to images; a model of pixels has them already."""
    from edadm.networks.convert import load_decoder

    if model.autoencoder is None:
        return lambda latents: latents
    if weights is None:
        raise EdadmError(
            "this model makes latents; give its decoder with --autoencoder (from convert-checkpoint --part autoencoder)"
        )
    return load_decoder(model, weights, device)
