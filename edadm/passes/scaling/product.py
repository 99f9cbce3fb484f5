"""Products of one input with weights of layers, quantized by grids that follow the factors of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from edadm.config.schema import Bits, LearnedScales
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer
from edadm.passes.ranges import set_weight_grid
from edadm.passes.scaling.votes import voted_exponents
from edadm.quant.affine import SMALLEST_SCALE
from edadm.quant.observer import RunningRange


@dataclass
class _Grids:
    """Grids of the segments of a tensor, as shares of the largest magnitudes that they cover.

    So they follow factors of its channels, by the shares that were found when they were searched.
    """

    bits: int
    low: Float[Tensor, "*rows segments"]
    high: Float[Tensor, "*rows segments"]

    @classmethod
    def of(cls, scale: Tensor, zero_point: Tensor, extent: Tensor, bits: int) -> _Grids:
        shares = scale / extent.clamp(min=SMALLEST_SCALE)
        return cls(bits, -zero_point * shares, (2**bits - 1 - zero_point) * shares)

    def __call__(self, part: Tensor, segment: int, extent: Float[Tensor, " *rows"]) -> Tensor:
        """The values of a segment on its grid; differentiable, straight through the rounding."""
        each = (-1, *[1] * (part.dim() - 1)) if extent.dim() else ()
        low, high = (
            (self.low[..., segment] * extent).reshape(each),
            (self.high[..., segment] * extent).reshape(each),
        )
        top = 2**self.bits - 1
        scale = ((high - low) / top).clamp(min=SMALLEST_SCALE)
        zero_point = (-low / scale).detach().round()
        codes = part / scale
        codes = codes + (codes.round() - codes).detach()
        return torch.minimum(torch.maximum(codes, -zero_point), top - zero_point) * scale


class Product:
    """The products of one input with the weights of layers that share its factors.

    Grids are those that would be searched with the factors of the last `search`, and follow others.

    Args:
        layers: what they are.
        x: their input over all rows.
        timesteps: of the rows.
        bits: says how grids are searched.
        told: how to learn.
    """

    def __init__(
        self,
        layers: Sequence[QuantizedLayer],
        x: Float[Tensor, "n ..."],
        timesteps: Int[Tensor, " n"] | Float[Tensor, " n"],
        bits: Bits,
        told: LearnedScales,
    ):
        self.layers, self.layer, self.x, self.told, self.preset = layers, layers[0], x, told, bits
        assert self.layer.input_quantizer is not None
        self.bits, self.sizes = self.layer.input_quantizer.bits, self.layer.channel_sizes
        self.axis = 1 if isinstance(self.layer, QuantizedConv2d) else -1
        distinct, self.steps = timesteps.unique(return_inverse=True)
        self.count = len(distinct)
        self.weights = [layer.unsmoothed_weight.clone() for layer in layers]
        self.largest = x.abs().movedim(self.axis, 0).flatten(1).amax(1)  # of each channel

    def search(self, exponents: Int8[Tensor, " channels"]) -> None:
        """Searches the grids of the input and of the weights with factors."""
        factors, preset = torch.exp2(exponents.float()), self.preset
        is_asymmetric = preset.activation_grid == "asymmetric"
        found = []
        for part in self._divided(self.x, factors).split(self.sizes, dim=self.axis):
            running = RunningRange(self.bits, preset.range_momentum, preset.range_bins, is_asymmetric)
            found.append(torch.stack([*running.update(part), part.abs().amax()]))
        scale, zero_point, extent = torch.stack(found, dim=1)
        self.of_input = _Grids.of(scale, zero_point, extent, self.bits)
        self.of_weights = []
        for layer in self.layers:
            layer.set_smoothing(exponents)
            set_weight_grid(layer, preset.weight_zero_point == "either")
            grid = layer.weight_quantizer
            extents = [
                part.abs().flatten(1).amax(1) for part in layer.weight.detach().split(self.sizes, dim=1)
            ]
            self.of_weights.append(
                _Grids.of(grid.scale, grid.zero_point, torch.stack(extents, dim=1), grid.bits)
            )

    def _divided(self, x: Tensor, factors: Float[Tensor, " channels"]) -> Tensor:
        return x / (factors[:, None, None] if self.axis == 1 else factors)

    def errors(self, factors: Float[Tensor, " channels"], rows: Tensor | slice) -> Float[Tensor, " k"]:
        """The mean squared error of each row's outputs, summed over layers; differentiable in the factors."""
        x = self.x[rows]
        extents = [part.amax() for part in (self.largest / factors).split(self.sizes)]
        parts = self._divided(x, factors).split(self.sizes, dim=self.axis)
        given = [self.of_input(part, index, extents[index]) for index, part in enumerate(parts)]
        on_grid, total = torch.cat(given, dim=self.axis), x.new_zeros(len(x))
        for layer, weight, grids in zip(self.layers, self.weights, self.of_weights, strict=True):
            scaled = weight * factors.reshape(-1, *[1] * (weight.dim() - 2))
            columns = enumerate(scaled.split(self.sizes, dim=1))
            quantized = [grids(part, index, part.abs().flatten(1).amax(1)) for index, part in columns]
            found, exact = layer.operation(on_grid, torch.cat(quantized, dim=1)), layer.operation(x, weight)
            total = total + (found - exact).square().flatten(1).mean(1)
        return total

    def all_errors(self, exponents: Int8[Tensor, " channels"]) -> Float[Tensor, " rows"]:
        """The errors of all rows, on grids that are searched for these factors."""
        self.search(exponents)
        size = self.told.batch_size
        parts = [slice(start, start + size) for start in range(0, len(self.x), size)]
        return torch.cat([self.errors(torch.exp2(exponents.float()), part) for part in parts])

    def by_step(self, errors: Float[Tensor, " rows"], steps: Int[Tensor, " rows"]) -> Tensor:
        """The mean error of each timestep; not a number for one without rows."""
        sums = errors.new_zeros(self.count).index_add_(0, steps, errors)
        return sums / errors.new_zeros(self.count).index_add_(0, steps, torch.ones_like(errors))

    def weigh(self, by_step: Float[Tensor, " steps"]) -> Float[Tensor, " steps"]:
        """The weight of each timestep, in [0, 1], from its error."""
        total = by_step.sum().clamp(min=torch.finfo(by_step.dtype).tiny)
        return (1 - by_step / total) ** self.told.focus

    def voted(self) -> Int8[Tensor, " channels"]:
        """Exponents by vote of the rows, those of each segment on its own grid."""
        by_channel = self.x.movedim(self.axis, 1).flatten(2) if self.x.dim() > 2 else self.x[..., None]
        told = self.told.agreement, self.preset.activation_grid == "asymmetric"
        parts = by_channel.split(self.sizes, dim=1)
        return torch.cat([voted_exponents(part, self.bits, *told) for part in parts])
