"""Learning the rounding and the activation step sizes of one unit jointly (FBR; method, 4.3 to 4.5)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edadm.config.schema import Reconstruction
from edadm.learning.capture.data import UnitData
from edadm.learning.steps.descent import Descent, align_layouts
from edadm.learning.steps.losses import squared_error
from edadm.learning.steps.parameters import learning
from edadm.learning.steps.replay import stepping
from edadm.nn.insert import undecided
from edadm.nn.layers import QuantizedLayer
from edadm.quant.streams import Stream


@dataclass(frozen=True)
class UnitReport:
    """Errors of one unit, its inputs quantized.

    Attributes:
        before: unit error over the learned rows with rounding to nearest and the searched ranges.
        soft: after learning, with fractional rounding.
        after: after learning, with integer rounding.
        held_out_before: as `before`, over rows that are not learned from; None without such rows.
        held_out_after: as `after`, likewise.
        flipped: share of weights not rounded to nearest any more, in [0, 1].
        scale_drift: mean of |log(learned / searched)| over the activation step sizes.
    """

    before: float
    soft: float
    after: float
    held_out_before: float | None
    held_out_after: float | None
    flipped: float
    scale_drift: float


@torch.no_grad()
def unit_errors(unit: nn.Module, data: UnitData, batch_size: int) -> tuple[float, float | None]:
    """The reconstruction error of a unit whose inputs are quantized.

    Returns:
        over the learned rows, and over the held-out ones; None where there are none of these.
    """

    device = next(unit.parameters()).device

    def over(first: int, last: int) -> Tensor:
        total = torch.zeros((), device=device)
        for start in range(first, last, batch_size):
            part = slice(start, min(start + batch_size, last))
            total += squared_error(data.quantized.rows(part).call(unit), data.target[part].to(device)) * (
                part.stop - part.start
            )
        return total / (last - first)

    learned = over(0, data.learned).item()
    return learned, over(data.learned, len(data.target)).item() if data.held_out else None


def learn_unit(
    unit: nn.Module,
    data: UnitData,
    settings: Reconstruction,
    stream: Stream,
    around_learning: Callable[[], AbstractContextManager[None]] = nullcontext,
    graphs: bool = True,
    weights: Tensor | None = None,
) -> UnitReport:
    """Learns a quantized unit in place; its weights must be float and its grids set.

    Args:
        unit: the module, holding quantized layers; those that are decided stay as they are.
        data: its inputs and targets; tables in `data.far` may lie off the unit's device.
        settings: iterations, learning rates and so on.
        stream: all randomness of this unit; its step counter must be zero.
        around_learning: a context for the learning steps, e.g. a clock.
        graphs: replay a CUDA graph where there is a GPU.
        weights: of the learned rows, by which they are drawn; equal ones if none are given.
    """
    layers, quantizers = undecided(unit)
    searched = {name: quantizer.scale.clone() for name, quantizer in quantizers.items()}
    nearest = {name: layer.nearest_codes() for name, layer in layers.items()}
    before, held_out_before = _errors_with_codes(unit, layers, nearest, data, settings)
    align_layouts(unit, data)
    with learning(unit, settings, stream) as (alphas, sizes):
        descent = Descent(unit, data, settings, alphas, sizes, stream, weights)
        with stepping(descent, graphs) as step, around_learning():
            for _ in range(settings.iterations):
                step()
    soft, _ = unit_errors(unit, data, settings.chain_batch_size)
    flips, count = 0, 0
    for name, layer in layers.items():
        layer.harden()
        assert layer.codes is not None
        flips += int((layer.codes != nearest[name]).sum())
        count += layer.codes.numel()
    drift = [(q.scale / searched[name]).log().abs().mean() for name, q in quantizers.items()]
    after, held_out_after = unit_errors(unit, data, settings.chain_batch_size)
    moved = torch.stack(drift).mean().item() if drift else 0.0
    return UnitReport(before, soft, after, held_out_before, held_out_after, flips / count, moved)


def _errors_with_codes(
    unit: nn.Module,
    layers: dict[str, QuantizedLayer],
    codes: dict[str, Tensor],
    data: UnitData,
    settings: Reconstruction,
) -> tuple[float, float | None]:
    """The unit's errors with given codes; its float weights are put back afterwards."""
    weights = {name: layer.weight.data for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.set_codes(codes[name])
    errors = unit_errors(unit, data, settings.chain_batch_size)
    for name, layer in layers.items():
        layer.weight.data = weights[name]
    return errors
