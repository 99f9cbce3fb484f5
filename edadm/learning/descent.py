"""The learning steps of one unit: each the same operations, so that a CUDA graph can replay them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edadm.config.schema import Reconstruction
from edadm.kernels.learning.geometry import memory_like
from edadm.kernels.learning.operations import has_kernels, mixed_rows, rows_error
from edadm.learning.data import Arguments, UnitData, listening
from edadm.learning.losses import indecision
from edadm.learning.precision import learning_cast
from edadm.learning.tables import INPUTS, LAYER, OTHERS, TARGET, StepData
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.quant.affine import SMALLEST_SCALE
from edadm.quant.streams import Stream

GRAPH_WARM_UP = 3  # steps before a capture: kernels get compiled, the optimizer makes its state


class StepSizes:
    """The activation step sizes of a unit as parameters: themselves (method, 3.7), or their logarithms."""

    def __init__(self, unit: nn.Module, logarithmic: bool):
        self._quantizers = list(activation_quantizers(unit).values())
        self._logarithmic = logarithmic
        start = (
            q.scale.detach().log() if logarithmic else q.scale.detach().clone() for q in self._quantizers
        )
        self.parameters = [values.requires_grad_(True) for values in start]

    def put(self) -> None:
        """Hands the quantizers their step sizes for the next forward."""
        for quantizer, parameter in zip(self._quantizers, self.parameters, strict=True):
            quantizer.scale = parameter.exp() if self._logarithmic else parameter

    @torch.no_grad()
    def keep_positive(self) -> None:
        """Nothing else keeps a step size above zero (quirk Q15); logarithms need no help."""
        if self.parameters and not self._logarithmic:
            torch._foreach_clamp_min_(self.parameters, SMALLEST_SCALE)

    def settle(self) -> None:
        """Step sizes become constants."""
        with torch.no_grad():
            self.put()
        for quantizer in self._quantizers:
            quantizer.scale = quantizer.scale.detach()


@contextmanager
def learning(
    unit: nn.Module, settings: Reconstruction, stream: Stream
) -> Iterator[tuple[list[Tensor], StepSizes]]:
    """Inside the context a unit's rounding and step sizes are parameters, and its activations are dropped.

    Yields the rounding variables and the step sizes. On leaving, step sizes are constants again; roundings
    stay soft until they are hardened.
    """
    alphas = [layer.start_rounding() for layer in quantized_layers(unit).values()]
    quantizers = activation_quantizers(unit)
    for name, quantizer in quantizers.items():
        quantizer.drop(settings.drop_probability, stream.child(name))
    sizes = StepSizes(unit, settings.scale_parameter == "log")
    try:
        yield alphas, sizes
    finally:
        sizes.settle()
        for quantizer in quantizers.values():
            quantizer.drop(0.0, None)


def row_table(iterations: int, batch_size: int, rows: int, stream: Stream) -> Int[Tensor, "iterations k"]:
    """For each step, different rows in random order: those with the smallest of `rows` random numbers."""
    size = min(batch_size, rows)
    table = [
        stream.child(first)
        .bits(rows * min(1024, iterations - first))
        .view(-1, rows)
        .topk(size, largest=False)
        .indices
        for first in range(0, iterations, 1024)
    ]
    return torch.cat(table)


def cosine_rates(iterations: int) -> Float[Tensor, " iterations"]:
    """Factors of the learning rate at each step, fp64: half a cosine from 1 to 0 (method, 4.3, step 7)."""
    return 0.5 * (1 + torch.cos(math.pi * torch.arange(iterations, dtype=torch.float64) / iterations))


def rounding_exponents(iterations: int) -> tuple[Float[Tensor, " iterations"], Float[Tensor, " iterations"]]:
    """The regulariser's switch and exponent at each step (AdaRound).

    It is off for a fifth of the steps; then its exponent falls from 20 to 2 along half a cosine.
    """
    progress = ((torch.arange(iterations, dtype=torch.float64) / iterations - 0.2) / 0.8).clamp(min=0)
    return (progress > 0).double(), 2 + 0.5 * (20 - 2) * (1 + torch.cos(math.pi * progress))


class Descent:
    """Joint Adam steps on roundings and step sizes (method, 4.3).

    One quantized forward a step serves the unit's error and those of its inner layers; the official code
    makes two, with different drop masks, and one of the float unit (quirk Q12). The step counter of `stream`
    counts up, and everything that changes from step to step is read with it from tables on the device.

    Args:
        unit: inside `learning`.
        data: its inputs and targets.
        settings: rates and so on.
        alphas: rounding variables, from `learning`.
        sizes: step sizes, likewise.
        stream: from which rows and masks are drawn.
    """

    def __init__(
        self,
        unit: nn.Module,
        data: UnitData,
        settings: Reconstruction,
        alphas: list[Tensor],
        sizes: StepSizes,
        stream: Stream,
    ):
        kind: dict[str, Any] = {"device": stream.step.device, "dtype": data.target.dtype}
        self.unit, self.settings, self.alphas, self.sizes = unit, settings, alphas, sizes
        self.step, self._steps_begun = stream.step, 0
        self._mixing = stream.child("mix")
        self._rows = row_table(settings.iterations, settings.batch_size, data.learned, stream.child("rows"))
        self._staged = StepData(data, self._rows)
        self._rates = cosine_rates(settings.iterations).to(**kind)
        self._regulariser = [table.to(**kind) for table in rounding_exponents(settings.iterations)]
        groups = [(alphas, settings.weight_lr), (sizes.parameters, settings.scale_lr)]
        self._base_rates = [torch.tensor(rate, **kind) for parameters, rate in groups if parameters]
        self._optimizer = torch.optim.Adam(
            [
                {"params": parameters, "lr": torch.tensor(rate, **kind)}
                for parameters, rate in groups
                if parameters
            ],
            fused=True,
            capturable=stream.step.is_cuda,
        )
        self.losses = torch.zeros(settings.iterations, **kind)

    def _at(self, table: Tensor) -> Tensor:
        return table.index_select(0, self.step.view(1))[0]

    def bring(self) -> None:
        """Brings the rows of the next step to the device.

        To be called before every `iterate` where tables are elsewhere.
        """
        self._staged.bring(self._steps_begun)
        self._steps_begun += 1

    def iterate(self) -> None:
        """One learning step."""
        loss = self._loss(self._at(self._rows))
        self._optimizer.zero_grad()
        loss.backward()
        rate = self._at(self._rates)
        for group, base in zip(self._optimizer.param_groups, self._base_rates, strict=True):
            torch.mul(base, rate, out=group["lr"])
        self._optimizer.step()
        self.sizes.keep_positive()
        with torch.no_grad():
            self.losses.index_copy_(0, self.step.view(1).long(), loss.detach().view(1).to(self.losses.dtype))
            self.step.add_(1)

    def _loss(self, drawn: Int[Tensor, " k"]) -> Float[Tensor, ""]:
        data, settings, rows = self._staged.data, self.settings, self._staged.rows
        main, others = data.quantized.main, rows(OTHERS, drawn)
        mixed = mixed_rows(
            data.quantized.tensors[main],
            data.exact.tensors[data.exact.main],
            rows(INPUTS, drawn),
            settings.mix_probability,
            self._mixing,
        )
        chosen = {
            name: table.index_select(0, others)
            for name, table in data.quantized.tensors.items()
            if name != main
        }
        arguments = Arguments({main: mixed, **chosen}, data.quantized.others)
        self.sizes.put()
        with torch.enable_grad(), listening(self.unit, list(data.layer_targets)) as outputs:
            with learning_cast(settings.precision, drawn.device):
                output = arguments.call(self.unit)
            loss = rows_error(output, data.target, rows(TARGET, drawn))
            for name, target in data.layer_targets.items():
                error = rows_error(outputs[name], target, rows(LAYER + name, drawn))
                loss = loss + settings.layer_weight * data.layer_factor(name) * error
            if settings.rounding_weight > 0:
                is_on, exponent = (self._at(table) for table in self._regulariser)
                loss = loss + settings.rounding_weight * is_on * indecision(self.alphas, exponent)
        return loss

    @torch.no_grad()
    def restart(self) -> None:
        """Back before the first step; parameters must be put back by the caller."""
        for state in self._optimizer.state.values():
            for value in state.values():
                value.zero_()
        self.step.zero_()
        self.losses.zero_()
        self._steps_begun = 0


def align_layouts(unit: nn.Module, data: UnitData) -> None:
    """Lays targets out in memory as the unit's outputs are, so that learning steps need no copies."""
    with torch.no_grad(), listening(unit, ["", *data.layer_targets]) as outputs:
        data.quantized.rows(slice(0, 2)).call(unit)
    output = outputs[""][0] if isinstance(outputs[""], tuple) else outputs[""]
    data.target = memory_like(data.target, output)
    data.layer_targets = {
        name: memory_like(target, outputs[name]) for name, target in data.layer_targets.items()
    }
    main = data.quantized.main
    data.quantized.tensors[main] = memory_like(data.quantized.tensors[main])
    data.exact.tensors[main] = memory_like(data.exact.tensors[main], data.quantized.tensors[main])


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all units: cuBLAS keeps 32 MiB for each stream that it ever saw."""
    return torch.cuda.Stream(device)


@contextmanager
def stepping(descent: Descent, graphs: bool = True) -> Iterator[Callable[[], None]]:
    """A function that makes one learning step: a replayed CUDA graph where possible, else `Descent.iterate`.

    The capture covers rows, masks, forward, backward, both Adam updates and the schedules; rows of tables
    that are not on the device are brought before each replay. Steps made to warm up are undone, so that both
    ways learn the same from the same stream.
    """

    def after_bringing(iterate: Callable[[], None]) -> Callable[[], None]:
        def step() -> None:
            descent.bring()
            iterate()

        return step

    eager = after_bringing(descent.iterate)
    if not (graphs and has_kernels(descent.step)):
        yield eager
        return
    parameters = [*descent.alphas, *descent.sizes.parameters]
    kept = [parameter.detach().clone() for parameter in parameters]
    side = _side_stream(descent.step.device)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(min(GRAPH_WARM_UP, descent.settings.iterations)):
            eager()
    torch.cuda.current_stream().wait_stream(side)
    descent._optimizer.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        descent.iterate()
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
    descent.restart()
    try:
        yield after_bringing(graph.replay)
    finally:
        graph.reset()
