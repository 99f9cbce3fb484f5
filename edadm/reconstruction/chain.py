"""FBR over all units: the inputs of a unit pass through the finished units before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edadm.config.schema import Reconstruction
from edadm.models.units import Unit
from edadm.nn.surgery import activation_quantizers, quantized_layers
from edadm.reconstruction.capture import PausedForward, PausingNetwork
from edadm.reconstruction.engine import UnitData, UnitReport, learn_unit, listening


@dataclass(frozen=True)
class FinishedUnit:
    """All that learning decided about one unit: integer codes of its weights, step sizes of its activations."""

    codes: dict[str, Tensor]
    scales: dict[str, Tensor]
    report: UnitReport

    @classmethod
    def of(cls, module: nn.Module, report: UnitReport) -> FinishedUnit:
        """What a hardened module holds."""
        codes = {name: layer.codes for name, layer in quantized_layers(module).items() if layer.codes is not None}
        scales = {name: quantizer.scale for name, quantizer in activation_quantizers(module).items()}
        return cls(codes, scales, report)

    def put_into(self, module: nn.Module) -> None:
        """Brings a module with searched grids and float weights to the finished state."""
        for name, layer in quantized_layers(module).items():
            layer.set_codes(self.codes[name].to(layer.weight.device))
        for name, quantizer in activation_quantizers(module).items():
            quantizer.set_grid(self.scales[name], quantizer.zero_point)


@runtime_checkable
class UnitShelf(Protocol):
    """Where finished units are kept."""

    def get(self, index: int, unit: Unit) -> FinishedUnit | None:
        """A unit that was finished before, if it was."""

    def put(self, index: int, unit: Unit, finished: FinishedUnit) -> None:
        """Keeps a finished unit."""


def settings_of(unit: Unit, settings: Reconstruction) -> Reconstruction:
    """The settings for one unit; the last matching pattern of `unit_iterations` decides how long it learns."""
    matching = [count for pattern, count in settings.unit_iterations.items() if fnmatchcase(unit.name, pattern)]
    return settings.model_copy(update={"iterations": matching[-1]}) if matching else settings


def reconstruct_chain(
    float_unet: nn.Module,
    quantized_unet: nn.Module,
    units: Sequence[Unit],
    latents: Float[Tensor, "n c h w"],
    timesteps: Int[Tensor, " n"],
    settings: Reconstruction,
    generator_of: Callable[[int], torch.Generator],
    shelf: UnitShelf,
    on_unit: Callable[[int, Unit, UnitReport], None] = lambda index, unit, report: None,
    on_iteration: Callable[[], None] = lambda: None,
) -> None:
    """Learns every unit of `quantized_unet` in order, in place.

    A unit found on the shelf is taken from there; the passes walk through it all the same, so that the units after it
    see exactly what they would have seen in one undisturbed run.

    Args:
        float_unet: the full-precision network.
        quantized_unet: its quantized copy, grids set, weights in floating point.
        units: all units in order of execution; those left in floating point are passed by.
        latents: calibration states x_t.
        timesteps: their t.
        settings: how to learn.
        generator_of: gives each unit, by index, its own stream of random numbers.
        shelf: keeps finished units.
        on_unit: told about each unit when it is finished.
        on_iteration: told after each learning step.
    """
    names = [unit.name for unit in units]
    networks = [PausingNetwork(float_unet, names), PausingNetwork(quantized_unet, names)]
    batches = list(zip(latents.split(settings.chain_batch_size), timesteps.split(settings.chain_batch_size), strict=True))
    float_passes, quantized_passes = ([network.start(x, t) for x, t in batches] for network in networks)
    try:
        for index, unit in enumerate(units):
            module = quantized_unet.get_submodule(unit.name)
            if not quantized_layers(module):
                _walk_past(float_passes, quantized_passes)
                continue
            data = _gather(float_passes, quantized_passes, float_unet.get_submodule(unit.name), unit, settings)
            kept = shelf.get(index, unit)
            if kept is None:
                report = learn_unit(module, data, settings_of(unit, settings), generator_of(index), on_iteration)
                kept = FinishedUnit.of(module, report)
                shelf.put(index, unit, kept)
            else:
                kept.put_into(module)
            on_unit(index, unit, kept.report)
            del data
            _walk_past(quantized_passes)
            for waiting in float_passes:
                waiting.next_unit()
    finally:
        for network in networks:
            network.close()


def _walk_past(*groups: list[PausedForward]) -> None:
    """Moves passes that wait before a unit to the next one."""
    for waiting in (waiting for group in groups for waiting in group):
        waiting.run_unit()
        waiting.next_unit()


def _gather(
    float_passes: list[PausedForward], quantized_passes: list[PausedForward], float_module: nn.Module, unit: Unit, settings: Reconstruction
) -> UnitData:
    """Inputs of both networks at a unit, and the float unit's outputs; moves the float passes behind the unit."""
    has_inner = unit.kind != "layer" and settings.layer_weight > 0
    inner = [layer.removeprefix(unit.name + ".") for layer in unit.layers[:-1]] if has_inner else []
    quantized_calls = [waiting.call() for waiting in quantized_passes]
    float_calls = [waiting.call() for waiting in float_passes]
    targets, layers = [], []
    with listening(float_module, inner) as outputs:
        for waiting in float_passes:
            targets.append(waiting.run_unit())
            layers.append(dict(outputs))
    return UnitData(
        quantized_inputs=tuple(torch.cat(parts) for parts in zip(*(call.inputs for call in quantized_calls), strict=True)),
        float_inputs=tuple(torch.cat(parts) for parts in zip(*(call.inputs for call in float_calls), strict=True)),
        target=torch.cat(targets),
        layer_targets={name: torch.cat([batch[name] for batch in layers]) for name in inner},
    )
