"""Learning one unit: rounding of its weights and step sizes of its activations, jointly (FBR; method, 4.3 to 4.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edadm.config.schema import Reconstruction
from edadm.nn.layers import QuantizedLayer
from edadm.nn.surgery import activation_quantizers, quantized_layers
from edadm.quant.affine import SMALLEST_SCALE
from edadm.reconstruction.losses import reconstruction_error, squared_error


@dataclass
class UnitData:
    """What one unit learns from; rows are calibration samples.

    Attributes:
        quantized_inputs: inputs when all units before it are quantized; the first one is the main path.
        float_inputs: inputs in the float network.
        target: output of the float unit on its float inputs.
        layer_targets: outputs of the float unit's inner layers, by name within the unit.
    """

    quantized_inputs: tuple[Tensor, ...]
    float_inputs: tuple[Tensor, ...]
    target: Tensor
    layer_targets: dict[str, Tensor]


@dataclass(frozen=True)
class UnitReport:
    """Errors of one unit over all calibration rows, its inputs quantized.

    Attributes:
        before: unit error with rounding to nearest and the searched ranges.
        soft: after learning, with fractional rounding.
        after: after learning, with integer rounding.
        flipped: share of weights not rounded to nearest any more, in [0, 1].
        scale_drift: mean of |log(learned / searched)| over the activation step sizes.
    """

    before: float
    soft: float
    after: float
    flipped: float
    scale_drift: float


@contextmanager
def listening(unit: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """Collects the outputs of the unit's layers `names` at every forward inside the context; '' is the unit itself."""
    outputs: dict[str, Tensor] = {}
    handles = [
        unit.get_submodule(name).register_forward_hook(lambda _, inputs, output, n=name: outputs.__setitem__(n, output)) for name in names
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def learning(unit: nn.Module, settings: Reconstruction, generator: torch.Generator) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Inside the context the unit's roundings and activation step sizes are parameters, and activations are dropped.

    Yields the rounding variables and the step sizes. On leaving, step sizes are constants again; roundings stay soft
    until `harden`.
    """
    alphas = [layer.start_rounding() for layer in quantized_layers(unit).values()]
    quantizers = list(activation_quantizers(unit).values())
    scales = []
    for quantizer in quantizers:
        quantizer.scale = quantizer.scale.detach().clone().requires_grad_(True)
        quantizer.drop(settings.drop_probability, generator)
        scales.append(quantizer.scale)
    try:
        yield alphas, scales
    finally:
        for quantizer in quantizers:
            quantizer.scale = quantizer.scale.detach()
            quantizer.drop(0.0, generator)


@torch.no_grad()
def unit_error(unit: nn.Module, data: UnitData, batch_size: int) -> float:
    """The unit's error over all rows, its inputs quantized."""
    total, rows = 0.0, len(data.target)
    for start in range(0, rows, batch_size):
        part = slice(start, start + batch_size)
        output = unit(*(x[part] for x in data.quantized_inputs))
        total += squared_error(output, data.target[part]).item() * len(output)
    return total / rows


def learn_unit(
    unit: nn.Module,
    data: UnitData,
    settings: Reconstruction,
    generator: torch.Generator,
    on_iteration: Callable[[], None] = lambda: None,
) -> UnitReport:
    """Learns a quantized unit in place; its weights must be float and its grids set.

    One quantized forward a step serves both terms of the objective; the official code makes two with different drop
    masks (quirk Q12).

    Args:
        unit: the module, holding quantized layers.
        data: its inputs and targets.
        settings: iterations, learning rates and so on.
        generator: on the unit's device; all randomness of this unit.
        on_iteration: told after each step.
    """
    searched = {name: quantizer.scale.clone() for name, quantizer in activation_quantizers(unit).items()}
    weights = {name: layer.weight.data for name, layer in quantized_layers(unit).items()}
    nearest = {name: layer.nearest_codes() for name, layer in quantized_layers(unit).items()}
    before = _error_with_codes(unit, nearest, weights, data, settings)
    with learning(unit, settings, generator) as (alphas, scales):
        _descend(unit, data, settings, generator, alphas, scales, on_iteration)
    soft = unit_error(unit, data, settings.batch_size)
    flips, count = 0, 0
    for name, layer in quantized_layers(unit).items():
        layer.harden()
        assert layer.codes is not None
        flips += int((layer.codes != nearest[name]).sum())
        count += layer.codes.numel()
    drift = [(q.scale / searched[name]).log().abs().mean() for name, q in activation_quantizers(unit).items()]
    after = unit_error(unit, data, settings.batch_size)
    return UnitReport(before, soft, after, flips / count, torch.stack(drift).mean().item() if drift else 0.0)


def _error_with_codes(
    unit: nn.Module, codes: dict[str, Tensor], weights: dict[str, Tensor], data: UnitData, settings: Reconstruction
) -> float:
    """The unit's error with given codes; its float weights are put back afterwards."""
    layers: dict[str, QuantizedLayer] = quantized_layers(unit)
    for name, layer in layers.items():
        layer.set_codes(codes[name])
    error = unit_error(unit, data, settings.batch_size)
    for name, layer in layers.items():
        layer.weight.data = weights[name]
    return error


def _descend(
    unit: nn.Module,
    data: UnitData,
    settings: Reconstruction,
    generator: torch.Generator,
    alphas: list[Tensor],
    scales: list[Tensor],
    on_iteration: Callable[[], None],
) -> None:
    optimizers = [torch.optim.Adam(alphas, settings.weight_lr, fused=True)]
    if scales:
        optimizers.append(torch.optim.Adam(scales, settings.scale_lr, fused=True))
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.iterations) for optimizer in optimizers]
    with listening(unit, list(data.layer_targets)) as outputs, torch.enable_grad():
        for _ in range(settings.iterations):
            rows = torch.randperm(len(data.target), generator=generator, device=data.target.device)[: settings.batch_size]
            inputs = _mixed_inputs(data, rows, settings.mix_probability, generator)
            output = unit(*inputs)
            layer_targets = [target[rows] for target in data.layer_targets.values()]
            layer_outputs = [outputs[name] for name in data.layer_targets]
            loss = reconstruction_error(output, data.target[rows], layer_outputs, layer_targets, settings.layer_weight)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            with torch.no_grad():
                for scale in scales:
                    scale.clamp_(min=SMALLEST_SCALE)  # quirk Q15: nothing else keeps a step size positive
            on_iteration()


def _mixed_inputs(data: UnitData, rows: Tensor, probability: float, generator: torch.Generator) -> tuple[Float[Tensor, "..."], ...]:
    """Quantized inputs of the rows, where each element of the main path comes from the float network half the time."""
    main, *others = (x[rows] for x in data.quantized_inputs)
    quantized = torch.empty_like(main).uniform_(generator=generator).lt_(probability)
    return torch.lerp(data.float_inputs[0][rows], main, quantized), *others
