"""Learning the units of a network, in a chain or independently of each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from edadm.errors import EdadmError
from edadm.learning.capture.data import UnitData, inner_layers, listening
from edadm.learning.capture.demand import demand, work_bytes
from edadm.learning.capture.pausing import PausedForward, PausingNetwork
from edadm.learning.capture.tables import UnitTables
from edadm.learning.engine import UnitReport, learn_unit
from edadm.learning.steps.precision import arithmetic
from edadm.learning.task import Task, settings_of
from edadm.learning.unit_store import FinishedUnit
from edadm.networks.units.unit import Unit
from edadm.nn.insert import quantized_layers
from edadm.nn.sound import float_flaws, grid_flaws
from edadm.offload.cache import Memory
from edadm.offload.demand import Demand
from edadm.offload.limits import Budget, Limits
from edadm.quant.streams import Stream


def learn_chain(task: Task) -> None:
    """Learns units one after another from inputs that passed the finished units before (method, 4.2).

    A unit found in the unit store is taken from there; the paused passes go through it all the same, so that
    the units after it see exactly what they would have seen in one undisturbed run.

    Raises:
        EdadmError: what has to be kept exceeds the memory and the disk.
    """
    with arithmetic(task.settings.precision):
        needed, memory = _memory(task)
        with _passes(task, memory, task.float_unet, task.quantized_unet) as (floats, quantized):
            for index, unit in task.on_the_way:
                module = task.quantized_unet.get_submodule(unit.name)
                kept = task.unit_store.get(index, unit) if quantized_layers(module) else None
                if kept is not None or not quantized_layers(module):
                    _advance(floats)
                    _finish(task, unit, kept)
                else:
                    with _tables(memory, needed, unit) as tables:
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


def learn_independently(task: Task) -> None:
    """Learns the chosen units from inputs of the float network alone, whatever becomes of the others.

    Raises:
        EdadmError: what has to be kept exceeds the memory and the disk.
    """
    units = task.units
    found = {
        i: task.unit_store.get(i, units[i])
        for i in (range(len(units)) if task.chosen is None else task.chosen)
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
                    with _tables(memory, needed, unit) as tables:
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
    """The demand of a reconstruction, from one row of its inputs, and the memory that it may take."""
    needed = demand(task.float_unet, task.units, task.inputs, task.settings)
    device = task.inputs.device
    if task.memory is None:
        return needed, Memory(device, Limits())
    budget = Budget.in_gib(task.memory.device, task.memory.host, task.scratch)
    work = work_bytes(needed, task.quantized_unet, task.settings)
    return needed, Memory.within(budget, device, needed, work)


@contextmanager
def _passes(task: Task, memory: Memory, *networks: nn.Module) -> Iterator[list[list[PausedForward]]]:
    """Paused passes of the networks over all rows, a list for each network."""
    pausing = [
        PausingNetwork(network, [unit.name for _, unit in task.on_the_way], memory) for network in networks
    ]
    batches = task.inputs.split(task.settings.chain_batch_size)
    try:
        yield [[network.start(batch) for batch in batches] for network in pausing]
    finally:
        for network in pausing:
            network.close()


@contextmanager
def _tables(memory: Memory, needed: Demand, unit: Unit) -> Iterator[UnitTables]:
    """Tables for the inputs and targets of a unit."""
    of_unit = {one.name: one for one in needed.units}[unit.name]
    tables = UnitTables(memory, needed.rows, needed.table_sizes(of_unit))
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
    weights = task.before_unit(task, unit, data) if task.before_unit else None
    settings = settings_of(unit, task.settings)
    report = learn_unit(module, data, settings, stream, task.around_learning, task.graphs, weights)
    for after_unit in task.after_unit:
        report = after_unit(task, unit, data, report)
    refuse_no_numbers(unit, module, report)
    task.unit_store.put(index, unit, FinishedUnit.of(module, report))
    task.reports.append((unit, report))
    task.on_unit(1)


def refuse_no_numbers(unit: Unit, module: nn.Module, report: UnitReport) -> None:
    """Refuses to keep a unit that is no numbers.

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
            f"the unit '{unit.name}' was not kept, since {flaws[0]}; units before it are; lower weight_lr "
            "and scale_lr, or take precision: fp32, or look for numbers that are not finite in the "
            "calibration rows"
        )


def _fill(task: Task, unit: Unit, tables: UnitTables, floats: Sequence[PausedForward]) -> None:
    """Fills the tables with the float unit's inputs and outputs; moves the float passes behind the unit."""
    inner = inner_layers(unit, task.settings)
    with listening(task.float_unet.get_submodule(unit.name), inner) as outputs:
        for waiting in floats:
            tables.add_arguments("float", waiting.arguments())
            tables.add_targets(waiting.run_unit(), outputs)
            outputs.clear()
            waiting.next_unit()
