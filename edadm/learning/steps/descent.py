"""The learning steps of one unit: each the same operations, so that a CUDA graph can replay them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edadm.config.schema import Reconstruction
from edadm.kernels.learning.geometry import memory_like
from edadm.kernels.learning.operations import mixed_rows, rows_error
from edadm.learning.capture.arguments import Arguments, learned_part
from edadm.learning.capture.data import UnitData, listening
from edadm.learning.capture.tables import INPUTS, LAYER, OTHERS, TARGET, StepData
from edadm.learning.steps.losses import indecision
from edadm.learning.steps.parameters import StepSizes
from edadm.learning.steps.precision import learning_cast
from edadm.learning.steps.schedules import cosine_rates, rounding_exponents, row_table, weighted_row_table
from edadm.quant.streams import Stream

_adam_step = inspect.unwrap(torch.optim.Adam.step)  # what is around it imports torch's compiler, for nothing


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
        weights: of the learned rows, by which they are drawn; equal ones if none are given.
    """

    def __init__(
        self,
        unit: nn.Module,
        data: UnitData,
        settings: Reconstruction,
        alphas: list[Tensor],
        sizes: StepSizes,
        stream: Stream,
        weights: Float[Tensor, " rows"] | None = None,
    ):
        kind: dict[str, Any] = {"device": stream.step.device, "dtype": data.target.dtype}
        self.unit, self.settings, self.alphas, self.sizes = unit, settings, alphas, sizes
        self.step, self._steps_begun = stream.step, 0
        self._mixing = stream.child("mix")
        drawn = (settings.iterations, settings.batch_size)
        if weights is None:
            self._rows = row_table(*drawn, data.learned, stream.child("rows"))
        else:
            self._rows = weighted_row_table(*drawn, weights, stream.child("rows"))
        self._staged = StepData(data, self._rows)
        self._rates = cosine_rates(settings.iterations).to(**kind)
        self._regulariser = [table.to(**kind) for table in rounding_exponents(settings.iterations)]
        groups = [(alphas, settings.weight_lr), (sizes.parameters, settings.scale_lr)]
        self._base_rates = [torch.tensor(rate, **kind) for parameters, rate in groups if parameters]
        self.optimizer = torch.optim.Adam(
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
        self.optimizer.zero_grad()
        loss.backward()
        rate = self._at(self._rates)
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            torch.mul(base, rate, out=group["lr"])
        with torch.no_grad():
            _adam_step(self.optimizer)
            self.sizes.keep_positive()
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
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        self.step.zero_()
        self.losses.zero_()
        self._steps_begun = 0


def align_layouts(unit: nn.Module, data: UnitData) -> None:
    """Lays targets out in memory as the unit's outputs are, so that learning steps need no copies."""
    with torch.no_grad(), listening(unit, ["", *data.layer_targets]) as outputs:
        data.quantized.rows(slice(0, 2)).call(unit)
    data.target = memory_like(data.target, learned_part(outputs[""]))
    data.layer_targets = {
        name: memory_like(target, outputs[name]) for name, target in data.layer_targets.items()
    }
    main = data.quantized.main
    data.quantized.tensors[main] = memory_like(data.quantized.tensors[main])
    data.exact.tensors[main] = memory_like(data.exact.tensors[main], data.quantized.tensors[main])
