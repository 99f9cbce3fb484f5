"""FBR of one unit as a page of plain fp64 code, written from its text (method, 3.1 to 4.5).

What the engine must compute. It shares with the engine the random streams and the modules' structure, and
nothing else: quantizers, rounding, errors, Adam and schedule are written out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.config.schema import Reconstruction
from edadm.learning.capture.data import UnitData
from edadm.learning.steps.schedules import row_table
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.nn.quantizer import Quantizer
from edadm.quant.streams import Stream


class Round(torch.autograd.Function):
    """Half to even, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0]


@dataclass
class Plain:
    """What learning decided."""

    losses: list[float]
    roundings: dict[str, Tensor]
    step_sizes: dict[str, Tensor]


class _Grid(nn.Module):
    """An activation quantizer, written out: q = clamp(round(x / s) + z, 0, L - 1), x^ = (q - z) s, spared where the mask says so."""

    def __init__(self, old: Quantizer, stream: Stream, drop: float):
        super().__init__()
        self.scale = old.scale.double().clone().requires_grad_()
        self.zero_point, self.top, self.segments = old.zero_point.double(), 2**old.bits - 1, old.segments
        self.stream, self.drop = stream, drop

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for index, part in enumerate(x.split(list(self.segments), dim=1) if len(self.segments) > 1 else [x]):
            scale, zero_point = self.scale[index], self.zero_point[index]
            parts.append(((Round.apply(part / scale) + zero_point).clamp(0, self.top) - zero_point) * scale)
        return torch.where(
            self.stream.below(self.drop, like=x), x, torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        )


class _Layer(nn.Module):
    """A layer with AdaRound's soft weight, written out."""

    def __init__(self, old: nn.Module, grid: _Grid | None):
        super().__init__()
        quantizer = old.weight_quantizer
        scale, zero_point = (values.double() for values in quantizer.grid(old.weight.dim()))
        ratio = old.weight.double() / scale
        self.floor, self.scale, self.zero_point, self.top = (
            ratio.floor(),
            scale,
            zero_point,
            2**quantizer.bits - 1,
        )
        self.alpha = (-torch.log(1.2 / (ratio - self.floor + 0.1) - 1)).requires_grad_()
        self.bias = None if old.bias is None else old.bias.double()
        self.grid, self.old = grid, old

    def h(self) -> Tensor:
        """The learned fraction."""
        return (torch.sigmoid(self.alpha) * 1.2 - 0.1).clamp(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = ((self.floor + self.h() + self.zero_point).clamp(0, self.top) - self.zero_point) * self.scale
        x = x if self.grid is None else self.grid(x)
        if weight.dim() == 2:
            return F.linear(x, weight, self.bias)
        return F.conv2d(x, weight, self.bias, self.old.stride, self.old.padding)


def error(a: Tensor, b: Tensor) -> Tensor:
    """Sum over axis 1, mean over the others."""
    return ((a - b) ** 2).sum(1).mean()


def learn_plainly(unit: nn.Module, data: UnitData, settings: Reconstruction, stream: Stream) -> Plain:
    """Replaces the unit's layers and quantizers and learns in fp64."""
    unit.double()
    grids = {
        name: _Grid(q, stream.child(name), settings.drop_probability)
        for name, q in activation_quantizers(unit).items()
    }
    layers = {
        name: _Layer(old, grids.get(f"{name}.input_quantizer"))
        for name, old in quantized_layers(unit).items()
    }
    for name, module in [
        *layers.items(),
        *((n, g) for n, g in grids.items() if not n.endswith("input_quantizer")),
    ]:
        parent, _, attribute = name.rpartition(".")
        setattr(unit.get_submodule(parent), attribute, module)
    outputs: dict[str, Tensor] = {}
    for name in data.layer_targets:
        layers[name].register_forward_hook(lambda _, __, output, n=name: outputs.__setitem__(n, output))
    rows = row_table(settings.iterations, settings.batch_size, data.learned, stream.child("rows"))
    parameters = [(layer.alpha, settings.weight_lr) for layer in layers.values()] + [
        (g.scale, settings.scale_lr) for g in grids.values()
    ]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p, _ in parameters]
    losses = []
    for step in range(settings.iterations):
        stream.step.fill_(step)
        quantized, exact = (
            data.quantized.tensors[0][rows[step]].double(),
            data.exact.tensors[0][rows[step]].double(),
        )
        mixed = torch.where(
            stream.child("mix").below(settings.mix_probability, like=quantized), quantized, exact
        )
        others = [tensor[rows[step]].double() for key, tensor in data.quantized.tensors.items() if key != 0]
        loss = error(unit(mixed, *others), data.target[rows[step]].double())
        for name, target in data.layer_targets.items():
            ours, theirs = outputs[name], target[rows[step]].double()
            if data.channels_last:
                ours, theirs = ours.movedim(-1, 1), theirs.movedim(-1, 1)
            loss = loss + settings.layer_weight * error(ours, theirs)
        progress = (step / settings.iterations - 0.2) / 0.8
        if settings.rounding_weight > 0 and progress > 0:
            exponent = 2 + 9 * (1 + math.cos(math.pi * progress))
            undecided = sum((1 - (2 * layer.h() - 1).abs() ** exponent).sum() for layer in layers.values())
            loss = loss + settings.rounding_weight * undecided
        gradients = torch.autograd.grad(loss, [p for p, _ in parameters])
        losses.append(loss.item())
        factor = 0.5 * (1 + math.cos(math.pi * step / settings.iterations))
        with torch.no_grad():
            for (p, rate), (first, second), gradient in zip(parameters, moments, gradients, strict=True):
                first.mul_(0.9).add_(0.1 * gradient)
                second.mul_(0.999).add_(0.001 * gradient**2)
                corrected = (
                    first / (1 - 0.9 ** (step + 1)) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
                )
                p.sub_(factor * rate * corrected)
            for grid in grids.values():
                grid.scale.clamp_(min=1e-8)
    roundings = {
        name: (layer.floor + (layer.alpha >= 0) + layer.zero_point).clamp(0, layer.top)
        for name, layer in layers.items()
    }
    return Plain(losses, roundings, {name: grid.scale.detach() for name, grid in grids.items()})
