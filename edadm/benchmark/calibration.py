"""What learning a network costs, beside the same learning in plain eager PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from edadm.benchmark.clock import Clock
from edadm.config.schema import Reconstruction
from edadm.kernels.dispatch import without_kernels
from edadm.learning.task import Task, settings_of
from edadm.learning.unit_store import UnitStore
from edadm.learning.unkept import NoUnitStore
from edadm.passes.methods import run_method

MakeTask = Callable[[Reconstruction, UnitStore], Task]


def learning_cost(task: Task) -> dict[str, float]:
    """Learns, and says how long that took.

    Returns:
        `seconds` in all; `learning_seconds` of learning steps; `other_seconds` for inputs, targets, errors
        and graph captures; `steps` over all units; `ms_per_step`; `peak_gib` of the device's memory, 0 on a
        CPU.
    """
    device = task.inputs.device
    clock = Clock(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    begin = clock.now()
    run_method(dataclasses.replace(task, around_learning=clock))
    seconds = clock.now() - begin
    steps = sum(settings_of(unit, task.settings).iterations for unit, _ in task.reports)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    return {
        "seconds": seconds,
        "learning_seconds": clock.seconds,
        "other_seconds": seconds - clock.seconds,
        "steps": steps,
        "ms_per_step": 1000 * clock.seconds / steps,
        "peak_gib": peak,
    }


def compare(make_task: MakeTask, settings: Reconstruction, plain_iterations: int) -> dict[str, Any]:
    """The cost of learning with these settings, and the same steps without kernels and graphs, fewer of them.

    The engine's steps before a graph capture are not counted, the baseline's first ones are: give it enough
    for that not to matter.

    Returns:
        `engine` and `plain` as from `learning_cost`, and `ratio` of their milliseconds per step.
    """
    short = settings.model_copy(update={"iterations": plain_iterations, "unit_iterations": {}})
    with without_kernels():
        plain = learning_cost(dataclasses.replace(make_task(short, NoUnitStore()), graphs=False))
    engine = learning_cost(make_task(settings, NoUnitStore()))
    return {
        "settings": settings.model_dump(mode="json"),
        "device": torch.cuda.get_device_name() if engine["peak_gib"] else "cpu",
        "engine": engine,
        "plain": plain,
        "ratio": plain["ms_per_step"] / engine["ms_per_step"],
    }
