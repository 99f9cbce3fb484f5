"""A reconstruction method at work: the passes that its row in `edadm.config.methods.METHODS` names."""

from __future__ import annotations

import dataclasses

from edadm.config.methods import METHODS
from edadm.learning.task import Task
from edadm.nn.insert import quantized_layers
from edadm.passes.base import GIVEN, WANTED, Pass
from edadm.passes.bias import CORRECT_BIAS
from edadm.passes.nearest import ROUND_TO_NEAREST
from edadm.passes.reconstruct import RECONSTRUCT, RECONSTRUCT_FROM_FLOAT
from edadm.passes.row_weights import WEIGH_ROWS
from edadm.passes.temporal import LEARN_TEMPORAL

PASSES = {
    "round_to_nearest": ROUND_TO_NEAREST,
    "learn_temporal": LEARN_TEMPORAL,
    "weigh_rows": WEIGH_ROWS,
    "reconstruct": RECONSTRUCT,
    "reconstruct_from_float": RECONSTRUCT_FROM_FLOAT,
    "correct_bias": CORRECT_BIAS,
}


def passes_of(name: str) -> list[Pass]:
    """The passes of a reconstruction method, in the order in which they run.

    Raises:
        ValueError: they do not make a method: one reads what none before it wrote, the codes are never
            written, or they learn from other inputs than the method's row says.
    """
    method = METHODS[name]
    passes = [PASSES[one] for one in method.passes]
    there = set(GIVEN)
    for one, does in zip(method.passes, passes, strict=True):
        if missing := does.reads - there:
            raise ValueError(f"method '{name}': the pass '{one}' reads {min(missing)} before they are there")
        there |= does.writes
    if missing := WANTED - there:
        raise ValueError(f"method '{name}' writes no {min(missing)}")
    if {does.inputs for does in passes if does.learns} != ({method.inputs} - {None}):
        raise ValueError(f"method '{name}' has passes that learn from other inputs than '{method.inputs}'")
    return passes


def run_method(task: Task) -> None:
    """Runs the passes of a task's method over its network; those over units run as each unit is learned.

    Raises:
        ValueError: the method learns rounding, and weights are rounded already, as `prepare` leaves them.
    """
    passes = passes_of(task.settings.method)
    if METHODS[task.settings.method].learns:
        _refuse_rounded(task)
    hooks = tuple(does.after_unit for does in passes if does.after_unit)
    weighing = next((does.before_unit for does in passes if does.before_unit), None)
    for does in passes:
        if does.run:
            does.run(dataclasses.replace(task, before_unit=weighing, after_unit=hooks))


def _refuse_rounded(task: Task) -> None:
    layers = quantized_layers(task.quantized_unet)
    names = (name for unit in task.units for name in unit.layers if name in layers)
    if rounded := next((name for name in names if layers[name].codes is not None), None):
        raise ValueError(
            f"the weights of {rounded} are rounded already, and no method can learn how to round them; give "
            "their grids to a fresh copy: set_grids(quantized_copy(network, bits), grids(prepared))"
        )
