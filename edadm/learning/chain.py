"""Learning all units of a network, and what is kept of each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import nn

from edadm.config.schema import Memory as MemorySettings
from edadm.config.schema import Reconstruction
from edadm.errors import EdadmError
from edadm.learning.bias import correct_bias
from edadm.learning.capture import PausedForward, PausingNetwork
from edadm.learning.data import UnitData, inner_layers, listening
from edadm.learning.demand import Demand, demand
from edadm.learning.engine import UnitReport, learn_unit, unit_errors
from edadm.learning.limits import refuse_too_little, resolved
from edadm.learning.precision import arithmetic
from edadm.learning.tables import UnitTables
from edadm.learning.unit_store import FinishedUnit, UnitStore
from edadm.networks.inputs import Rows
from edadm.networks.unit import Unit
from edadm.nn.insert import quantized_layers
from edadm.nn.sound import float_flaws, grid_flaws
from edadm.offload.cache import Memory
from edadm.offload.storage import Limits
from edadm.quant.streams import Stream


@dataclass(frozen=True)
class Task:
    """What is to be learned, from what, and how.

    Attributes:
        float_unet: the full-precision network.
        quantized_unet: its quantized copy, grids set, weights in floating point; learned in place.
        units: all units in order of execution; those left in floating point are passed by.
        inputs: of the network, calibration rows first.
        held_out: so many rows at the end only measure what was learned.
        settings: how to learn.
        unit_store: keeps finished units.
        on_unit: told 1 whenever a unit is finished.
        around_learning: a context for the learning steps of each unit, e.g. a clock.
        graphs: replay CUDA graphs where there is a GPU.
        reports: filled with finished units and their reports.
        memory: limits of what is kept between computations; without them everything stays on the device.
        scratch: folder for what exceeds them.
    """

    float_unet: nn.Module
    quantized_unet: nn.Module
    units: Sequence[Unit]
    inputs: Rows
    held_out: int
    settings: Reconstruction
    unit_store: UnitStore
    on_unit: Callable[[int], None] = lambda units: None
    around_learning: Callable[[], AbstractContextManager[None]] = nullcontext
    graphs: bool = True
    reports: list[tuple[Unit, UnitReport]] = field(default_factory=list)
    memory: MemorySettings | None = None
    scratch: Path | None = None


def settings_of(unit: Unit, settings: Reconstruction) -> Reconstruction:
    """The settings for one unit; the last matching pattern of `unit_iterations` decides how long it learns."""
    matching = [
        count for pattern, count in settings.unit_iterations.items() if fnmatchcase(unit.name, pattern)
    ]
    changed: dict[str, object] = {"iterations": matching[-1]} if matching else {}
    if unit.kind in settings.without_layer_errors:
        changed["layer_weight"] = 0.0
    return settings.model_copy(update=changed) if changed else settings


def refuse_idle_patterns(units: Sequence[Unit], settings: Reconstruction) -> None:
    """A pattern that matches nothing is a mistake that would show in no result.

    Raises:
        EdadmError: a pattern of `unit_iterations` matches no unit.
    """
    for pattern in settings.unit_iterations:
        if not any(fnmatchcase(unit.name, pattern) for unit in units):
            raise EdadmError(
                f"unit_iterations: the pattern '{pattern}' matches no unit, such as '{units[0].name}'; remove it or mend its name"
            )


def learn_chain(task: Task) -> None:
    """Learns units one after another; the inputs of a unit pass through the finished units before it (method, 4.2).

    A unit found in the unit store is taken from there; the passes walk through it all the same, so that the units
    after it see exactly what they would have seen in one undisturbed run.

    Raises:
        EdadmError: what has to be kept exceeds the memory and the disk.
    """
    with arithmetic(task.settings.precision):
        needed, memory = _memory(task)
        with _passes(task, memory, task.float_unet, task.quantized_unet) as (floats, quantized):
            for index, unit in enumerate(task.units):
                module = task.quantized_unet.get_submodule(unit.name)
                kept = task.unit_store.get(index, unit) if quantized_layers(module) else None
                if kept is not None or not quantized_layers(module):
                    _advance(floats)
                    _finish(task, unit, kept)
                else:
                    with _tables(task, memory, needed, index) as tables:
                        for waiting in quantized:
                            tables.add_arguments("quantized", waiting.arguments())
                            waiting.rest()
                        _fill(task, unit, tables, floats)
                        _learn(
                            task,
                            index,
                            unit,
                            tables.data("quantized", "float", task.held_out, unit.channel_axis == -1),
                        )
                _advance(quantized)


def learn_independently(task: Task, chosen: Sequence[int]) -> None:
    """Learns the units at the positions `chosen` from inputs of the float network alone, whatever becomes of the others.

    Raises:
        EdadmError: what has to be kept exceeds the memory and the disk.
    """
    units = task.units
    found = {
        i: task.unit_store.get(i, units[i])
        for i in chosen
        if quantized_layers(task.quantized_unet.get_submodule(units[i].name))
    }
    if all(found.values()):
        for index, kept in found.items():
            _finish(task, units[index], kept)
        return
    with arithmetic(task.settings.precision):
        needed, memory = _memory(task)
        with _passes(task, memory, task.float_unet) as (floats,):
            for index, unit in enumerate(units):
                if index in found and found[index] is None:
                    with _tables(task, memory, needed, index) as tables:
                        _fill(task, unit, tables, floats)
                        _learn(
                            task,
                            index,
                            unit,
                            tables.data("float", "float", task.held_out, unit.channel_axis == -1),
                        )
                    continue
                _advance(floats)
                if index in found:
                    _finish(task, unit, found[index])


def _memory(task: Task) -> tuple[Demand, Memory]:
    """What this reconstruction keeps, by one row of its inputs, and where it may keep it."""
    needed = demand(task.float_unet, task.units, task.inputs, task.settings)
    device, limits = task.inputs.device, Limits()
    if task.memory is not None:
        wanted = resolved(task.memory, device, needed, task.quantized_unet, task.settings, task.scratch)
        refuse_too_little(needed, wanted)
        if (
            wanted.device < needed.of_peak()
        ):  # else nothing ever leaves the device, and passes need not be watched
            limits = wanted
    return needed, Memory(device, limits)


@contextmanager
def _passes(task: Task, memory: Memory, *networks: nn.Module) -> Iterator[list[list[PausedForward]]]:
    """Paused passes of the networks over all rows, a list for each network."""
    pausing = [PausingNetwork(network, [unit.name for unit in task.units], memory) for network in networks]
    batches = task.inputs.split(task.settings.chain_batch_size)
    try:
        yield [[network.start(batch) for batch in batches] for network in pausing]
    finally:
        for network in pausing:
            network.close()


@contextmanager
def _tables(task: Task, memory: Memory, needed: Demand, index: int) -> Iterator[UnitTables]:
    """Room for what the unit at a position learns from."""
    sizes = needed.units[index].tables(needed.networks)
    tables = UnitTables(memory, needed.rows, {name: size * needed.rows for name, size in sizes.items()})
    try:
        yield tables
    finally:
        tables.free()


def _advance(passes: Sequence[PausedForward]) -> None:
    for waiting in passes:
        waiting.advance()


def _finish(task: Task, unit: Unit, kept: FinishedUnit | None) -> None:
    """Brings a unit to the state in which it was kept; one that is left in floating point has none."""
    if kept is not None:
        kept.put_into(task.quantized_unet.get_submodule(unit.name))
        task.reports.append((unit, kept.report))
    task.on_unit(1)


def _learn(task: Task, index: int, unit: Unit, data: UnitData) -> None:
    """Learns a unit, and puts it into the unit store."""
    module = task.quantized_unet.get_submodule(unit.name)
    step = torch.zeros((), dtype=torch.int32, device=task.inputs.device)
    stream = Stream.of(task.settings.seed, "reconstruct", unit.name, step=step)
    report = learn_unit(
        module, data, settings_of(unit, task.settings), stream, task.around_learning, task.graphs
    )
    report = _corrected(task, unit, module, data, report)
    _refuse_no_numbers(unit, module, report)
    task.unit_store.put(index, unit, FinishedUnit.of(module, report))
    task.reports.append((unit, report))
    task.on_unit(1)


def _refuse_no_numbers(unit: Unit, module: nn.Module, report: UnitReport) -> None:
    """A unit that is no numbers is not kept.

    Raises:
        EdadmError: an error of it, a step size, or a bias is not finite, or a step size is not positive.
    """
    errors = {"before": report.before, "while": report.soft, "after": report.after}
    flaws = [
        f"its error {when} learning is {error}" for when, error in errors.items() if not math.isfinite(error)
    ]
    flaws = [*flaws, *grid_flaws(module), *float_flaws(module.named_parameters())]
    if flaws:
        raise EdadmError(
            f"the unit '{unit.name}' was not kept, since {flaws[0]}; units before it are; lower weight_lr and scale_lr, "
            "or take precision: fp32, or look for numbers that are not finite in the calibration rows"
        )


def _corrected(task: Task, unit: Unit, module: nn.Module, data: UnitData, report: UnitReport) -> UnitReport:
    """Corrects biases of a learned unit if the settings want that; the errors afterwards are those with new biases."""
    if not task.settings.bias_correction:
        return report
    size, learned = task.settings.chain_batch_size, slice(0, data.learned)
    float_module = task.float_unet.get_submodule(unit.name)
    correct_bias(
        float_module,
        module,
        list(quantized_layers(module)),
        data.exact.rows(learned),
        data.quantized.rows(learned),
        size,
    )
    after, held_out_after = unit_errors(module, data, size)
    return dataclasses.replace(report, after=after, held_out_after=held_out_after)


def _fill(task: Task, unit: Unit, tables: UnitTables, floats: Sequence[PausedForward]) -> None:
    """The float unit's inputs and outputs into their tables; moves the float passes behind the unit."""
    inner = inner_layers(unit, task.settings)
    with listening(task.float_unet.get_submodule(unit.name), inner) as outputs:
        for waiting in floats:
            tables.add_arguments("float", waiting.arguments())
            tables.add_targets(waiting.run_unit(), outputs)
            outputs.clear()
            waiting.next_unit()
