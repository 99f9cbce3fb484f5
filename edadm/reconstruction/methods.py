"""Reconstruction methods by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edadm.config.schema import Reconstruction
from edadm.models.units import Unit, trace_units
from edadm.nn.surgery import quantized_layers
from edadm.reconstruction.chain import UnitShelf, reconstruct_chain
from edadm.reconstruction.engine import UnitReport
from edadm.sampling.noise import keyed_generator

Reports = list[tuple[Unit, UnitReport]]
Advance = Callable[[int], None]


def none(
    float_unet: nn.Module,
    quantized_unet: nn.Module,
    latents: Float[Tensor, "n c h w"],
    timesteps: Int[Tensor, " n"],
    settings: Reconstruction,
    shelf: UnitShelf,
    advance: Advance,
) -> Reports:
    """Rounds weights to nearest and leaves the searched ranges; nothing is learned."""
    for layer in quantized_layers(quantized_unet).values():
        layer.set_codes(layer.nearest_codes())
    return []


def fbr(
    float_unet: nn.Module,
    quantized_unet: nn.Module,
    latents: Float[Tensor, "n c h w"],
    timesteps: Int[Tensor, " n"],
    settings: Reconstruction,
    shelf: UnitShelf,
    advance: Advance,
) -> Reports:
    """Fine-grained block reconstruction (EDA-DM): unit by unit, the unit's error and its inner layers' errors together."""
    reports: Reports = []

    def finished(index: int, unit: Unit, report: UnitReport) -> None:
        reports.append((unit, report))
        advance(1)

    def generator_of(index: int) -> torch.Generator:
        return keyed_generator(settings.seed, "reconstruct", index, device=latents.device)

    units = trace_units(float_unet)
    reconstruct_chain(float_unet, quantized_unet, units, latents, timesteps, settings, generator_of, shelf, finished)
    return reports


METHODS = {"fbr": fbr, "none": none}
