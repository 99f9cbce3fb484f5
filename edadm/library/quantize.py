"""Quantization of a diffusers U-Net in memory: ranges, then rounding and step sizes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from edadm.config.schema import Bits, Reconstruction
from edadm.config.stated import settings_of
from edadm.console import progress_bar
from edadm.deploy.checkpoint import save_quantized
from edadm.deploy.diffusers import QuantizedUNet
from edadm.deploy.grids import grids, quantized_copy, set_grids
from edadm.deploy.load import load
from edadm.errors import EdadmError
from edadm.learning.task import Task, refuse_idle_patterns
from edadm.learning.unkept import NoUnitStore
from edadm.library.presets import preset
from edadm.networks.build import build_network
from edadm.networks.families import network_call
from edadm.networks.family import Network
from edadm.networks.inputs import Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.configs.network import network_architecture
from edadm.networks.settings.reading import TRANSFORMERS, UNETS
from edadm.networks.units.temporal import units_of
from edadm.passes.methods import run_method
from edadm.passes.prepare import prepare
from edadm.version import __version__

CLASSES = (*UNETS, *TRANSFORMERS)
APART = 0.02  # of a prediction's norm: further from each other than types and kernels bring equal networks


def quantize(
    unet: nn.Module,
    rows: Rows,
    bits: str | Mapping[str, Any] = "w4a8",
    reconstruction: str | Mapping[str, Any] = "fbr_w4",
) -> QuantizedUNet:
    """The quantized copy of a float network of diffusers, as a diffusers model for `pipe.unet` or its like.

    Searches the grid of every weight and activation, then learns rounding and step sizes unit by unit, on the
    network's device. It is what `edadm.load` returns for the file that its `save_pretrained` writes.

    Args:
        unet: a `UNet2DModel`, `UNet2DConditionModel` or transformer of diffusers; it is left as it is.
        rows: from `edadm.calibrate`, or the caller's own.
        bits, reconstruction: presets by name, or settings, such as `{"base": "fbr_w4", "iterations": 500}`.
            The default ones name layers of U-Nets; for transformers take those of their own, such as
            `mmdit_w4a8`, and `seed_imagenet_w4`.

    Raises:
        EdadmError: a network that edadm does not build or that was changed since, or numbers that are not
            finite.
    """
    widths: Bits = preset("bits", bits)
    settings: Reconstruction = preset("reconstructions", reconstruction)
    architecture = _architecture(unet)
    network = _copied(unet, architecture)
    rows = rows.to(next(unet.parameters()).device)
    _refuse_other(unet, network, rows[:1])
    searched, quantized = quantized_copy(network, widths), quantized_copy(network, widths)
    with progress_bar("set ranges", len(rows) * widths.range_passes, "samples") as advance:
        prepare(searched, rows, widths, advance)
    set_grids(quantized, grids(searched))  # whose weights are still those of the float network
    del searched
    units = units_of(network, settings)
    refuse_idle_patterns(units, settings)
    task = Task(network, quantized, units, rows, 0, settings, NoUnitStore())
    with progress_bar("reconstruct", len(units), "units") as advance:
        run_method(dataclasses.replace(task, on_unit=advance))
    told = {"reconstruction": settings_of(settings), "edadm": __version__}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "quantized.safetensors"
        save_quantized(quantized, file, architecture, widths, told, rows.latents.shape[2:])
        return load(file, rows.device)


def _architecture(unet: nn.Module) -> Architecture:
    """The network's settings, from its configuration.

    Raises:
        EdadmError: it is no such network, or one that is not built here; names the key.
    """
    name = next((base.__name__ for base in type(unet).__mro__ if base.__name__ in CLASSES), None)
    if name is None:
        raise EdadmError(
            f"only a {' or a '.join(CLASSES)} of diffusers can be quantized, not a {type(unet).__name__}"
        )
    model: Any = unet
    config = json.loads(model.to_json_string()) | {"_class_name": name}
    settings, _ = network_architecture(config, Path("unet.config"))
    return Architecture.model_validate(settings)


def _copied(unet: nn.Module, architecture: Architecture) -> Network:
    """A frozen copy of a network in full precision, as edadm builds it.

    Raises:
        EdadmError: it has other weights than its configuration says.
    """
    with torch.device("meta"):
        network = build_network(architecture)
    own = network.state_dict()
    state = {name: tensor.detach().float().clone() for name, tensor in unet.state_dict().items()}
    if others := sorted(own.keys() ^ state.keys()):
        raise EdadmError(
            f"the network has other weights than its configuration says, such as {others[0]}; fuse or unload "
            "adapters before"
        )
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@torch.no_grad()
def _refuse_other(unet: nn.Module, network: Network, row: Rows) -> None:
    """Refuses a copy that computes something else, as after changes that stand in no configuration.

    Raises:
        EdadmError: their predictions differ.
    """
    model: Any = unet
    was_training = unet.training
    expected = network_call(unet.eval(), row.cast(model.dtype)).float()
    unet.train(was_training)
    apart = (network_call(network, row) - expected).norm() / expected.norm()
    if not apart <= APART:
        raise EdadmError(
            f"the network predicts something else than its configuration and weights say ({apart:.1%} off); "
            "undo what was changed in it since it was loaded, such as FreeU or merged tokens"
        )
