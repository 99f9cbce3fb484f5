"""What sees the timestep alone is learned first and at once (TFMQ-DM, arXiv 2311.16503).

Time embedding and the projections of it in all res-blocks see no image: their inputs are the sampler's
timesteps, of which there are few. So they are one unit, whose error is the sum over all projections' outputs
at all timesteps (the paper's temporal information aware reconstruction), and res-blocks no longer bend the
projections to what else is wrong in them. Every learning step takes all timesteps at once.

Of the paper's finite set calibration, a grid for each timestep, nothing is taken: grids here are static. They
are searched with all others, on the calibration rows, and their step sizes are learned here.
"""

from __future__ import annotations

import torch

from edadm.learning.capture.arguments import Arguments
from edadm.learning.capture.data import UnitData
from edadm.learning.chain import refuse_no_numbers
from edadm.learning.engine import learn_unit
from edadm.learning.steps.precision import arithmetic
from edadm.learning.task import Task, settings_of
from edadm.learning.unit_store import FinishedUnit
from edadm.networks.family import TemporalPart
from edadm.networks.units.temporal import temporal_part
from edadm.networks.units.unit import Unit
from edadm.nn.insert import quantized_layers
from edadm.passes.base import Pass
from edadm.quant.streams import Stream


def learn_temporal(task: Task) -> None:
    """Learns the layers that see the timestep alone; units that hold them leave them as they are afterwards.

    Biases of projections are corrected, where the settings want that, in their res-blocks.
    """
    for index, unit in enumerate(task.units):
        if not unit.is_apart:
            continue
        module = temporal_part(task.quantized_unet)
        if quantized_layers(module):
            kept = task.unit_store.get(index, unit)
            if kept is None:
                kept = _learned(task, unit, module)
                task.unit_store.put(index, unit, kept)
            else:
                kept.put_into(module)
            task.reports.append((unit, kept.report))
        for layer in quantized_layers(module).values():
            layer.is_decided = True
        task.on_unit(1)


def _learned(task: Task, unit: Unit, module: TemporalPart) -> FinishedUnit:
    """Learns on every timestep of the calibration rows, each once, all in every step."""
    exact = temporal_part(task.float_unet)
    with torch.no_grad(), arithmetic(task.settings.precision):
        given = exact.features(task.inputs.timesteps.unique())
        data = UnitData(Arguments({0: given}), Arguments({0: given.clone()}), exact(given), {})
    settings = settings_of(unit, task.settings).model_copy(update={"batch_size": len(given)})
    step = torch.zeros((), dtype=torch.int32, device=task.inputs.device)
    stream = Stream.of(settings.seed, "reconstruct", unit.name, step=step)
    with arithmetic(settings.precision):
        report = learn_unit(module, data, settings, stream, task.around_learning, task.graphs)
    refuse_no_numbers(unit, module, report)
    return FinishedUnit.of(module, report)


# It learns from no activations of either network, so that it fits whatever inputs a method learns from.
LEARN_TEMPORAL = Pass(
    frozenset({"weights", "ranges", "rows"}), frozenset({"codes", "ranges"}), run=learn_temporal
)
