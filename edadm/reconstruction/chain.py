"""Learning all units of a network, and what is kept of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from edadm.config.schema import Reconstruction
from edadm.models.units import Unit
from edadm.nn.surgery import activation_quantizers, quantized_layers
from edadm.quant.streams import Stream
from edadm.reconstruction.bias_correction import correct_bias
from edadm.reconstruction.capture import PausedForward, PausingNetwork
from edadm.reconstruction.data import Arguments, UnitData, inner_layers, listening
from edadm.reconstruction.engine import UnitReport, learn_unit, unit_errors
from edadm.reconstruction.precision import arithmetic


@dataclass(frozen=True)
class FinishedUnit:
    """All that learning decided about one unit: integer codes of its weights, step sizes of its activations, biases."""

    codes: dict[str, Tensor]
    scales: dict[str, Tensor]
    biases: dict[str, Tensor]
    report: UnitReport

    @classmethod
    def of(cls, module: nn.Module, report: UnitReport) -> FinishedUnit:
        """What a hardened module holds."""
        codes = {name: layer.codes for name, layer in quantized_layers(module).items() if layer.codes is not None}
        scales = {name: quantizer.scale for name, quantizer in activation_quantizers(module).items()}
        biases = {name: layer.bias.detach() for name, layer in quantized_layers(module).items() if layer.bias is not None}
        return cls(codes, scales, biases, report)

    def put_into(self, module: nn.Module) -> None:
        """Brings a module with searched grids and float weights to the finished state."""
        for name, layer in quantized_layers(module).items():
            layer.set_codes(self.codes[name].to(layer.weight.device))
            if name in self.biases:  # replaced, not changed: the float network shares the old one
                layer.bias = nn.Parameter(self.biases[name].to(layer.weight.device), requires_grad=False)
        for name, quantizer in activation_quantizers(module).items():
            quantizer.set_grid(self.scales[name], quantizer.zero_point)


@runtime_checkable
class UnitShelf(Protocol):
    """Where finished units are kept."""

    def get(self, index: int, unit: Unit) -> FinishedUnit | None:
        """A unit that was finished before, if it was."""

    def put(self, index: int, unit: Unit, finished: FinishedUnit) -> None:
        """Keeps a finished unit."""


@dataclass(frozen=True)
class Task:
    """What is to be learned, from what, and how.

    Attributes:
        float_unet: the full-precision network.
        quantized_unet: its quantized copy, grids set, weights in floating point; learned in place.
        units: all units in order of execution; those left in floating point are passed by.
        inputs: of the network, calibration rows first: x_t, t, and a condition if it takes one.
        held_out: so many rows at the end only measure what was learned.
        settings: how to learn.
        shelf: keeps finished units.
        on_unit: told 1 whenever a unit is finished.
        around_learning: a context for the learning steps of each unit, e.g. a clock.
        graphs: replay CUDA graphs where there is a GPU.
        reports: filled with finished units and their reports.
    """

    float_unet: nn.Module
    quantized_unet: nn.Module
    units: Sequence[Unit]
    inputs: tuple[Tensor, ...]
    held_out: int
    settings: Reconstruction
    shelf: UnitShelf
    on_unit: Callable[[int], None] = lambda units: None
    around_learning: Callable[[], AbstractContextManager[None]] = nullcontext
    graphs: bool = True
    reports: list[tuple[Unit, UnitReport]] = field(default_factory=list)


def settings_of(unit: Unit, settings: Reconstruction) -> Reconstruction:
    """The settings for one unit; the last matching pattern of `unit_iterations` decides how long it learns."""
    matching = [count for pattern, count in settings.unit_iterations.items() if fnmatchcase(unit.name, pattern)]
    changed: dict[str, object] = {"iterations": matching[-1]} if matching else {}
    if unit.kind in settings.without_layer_errors:
        changed["layer_weight"] = 0.0
    return settings.model_copy(update=changed) if changed else settings


def learn_chain(task: Task) -> None:
    """Learns units one after another; the inputs of a unit pass through the finished units before it (method, 4.2).

    A unit found on the shelf is taken from there; the passes walk through it all the same, so that the units after it
    see exactly what they would have seen in one undisturbed run.
    """
    with arithmetic(task.settings.precision), _passes(task, task.float_unet, task.quantized_unet) as (floats, quantized):
        for index, unit in enumerate(task.units):
            module = task.quantized_unet.get_submodule(unit.name)
            if not quantized_layers(module):
                _walk_past(floats + quantized)
                task.on_unit(1)
                continue
            arguments = Arguments.joined([waiting.arguments() for waiting in quantized])
            data = _unit_data(task, unit, floats, arguments)
            _finish(task, index, unit, data)
            del data, arguments
            _walk_past(quantized)


def learn_independently(task: Task, chosen: Sequence[int]) -> None:
    """Learns the units at the positions `chosen` from inputs of the float network alone, whatever becomes of the others."""
    units = task.units
    needed = [i for i in chosen if quantized_layers(task.quantized_unet.get_submodule(units[i].name))]
    if all(task.shelf.get(i, units[i]) for i in needed):
        for index in needed:
            _finish(task, index, units[index], None)
        return
    with arithmetic(task.settings.precision), _passes(task, task.float_unet) as (floats,):
        for index, unit in enumerate(units):
            if index not in needed:
                _walk_past(floats)
                continue
            arguments = Arguments.joined([waiting.arguments() for waiting in floats])
            _finish(task, index, unit, _unit_data(task, unit, floats, arguments))


@contextmanager
def _passes(task: Task, *networks: nn.Module) -> Iterator[list[list[PausedForward]]]:
    """Paused passes of the networks over all rows, a list for each network."""
    pausing = [PausingNetwork(network, [unit.name for unit in task.units]) for network in networks]
    batches = list(zip(*(rows.split(task.settings.chain_batch_size) for rows in task.inputs), strict=True))
    try:
        yield [[network.start(*batch) for batch in batches] for network in pausing]
    finally:
        for network in pausing:
            network.close()


def _walk_past(passes: Sequence[PausedForward]) -> None:
    for waiting in passes:
        waiting.walk_past()


def _finish(task: Task, index: int, unit: Unit, data: UnitData | None) -> None:
    """Brings a unit to its finished state: from the shelf, or by learning from the data."""
    module = task.quantized_unet.get_submodule(unit.name)
    kept = task.shelf.get(index, unit)
    if kept is None:
        assert data is not None
        step = torch.zeros((), dtype=torch.int32, device=data.target.device)
        stream = Stream.of(task.settings.seed, "reconstruct", unit.name, step=step)
        report = learn_unit(module, data, settings_of(unit, task.settings), stream, task.around_learning, task.graphs)
        kept = FinishedUnit.of(module, _corrected(task, unit, module, data, report))
        task.shelf.put(index, unit, kept)
    else:
        kept.put_into(module)
    task.reports.append((unit, kept.report))
    task.on_unit(1)


def _corrected(task: Task, unit: Unit, module: nn.Module, data: UnitData, report: UnitReport) -> UnitReport:
    """Corrects biases of a learned unit if the settings want that; the errors afterwards are those with new biases."""
    if not task.settings.bias_correction:
        return report
    size, learned = task.settings.chain_batch_size, slice(0, data.learned)
    float_module = task.float_unet.get_submodule(unit.name)
    correct_bias(float_module, module, list(quantized_layers(module)), data.exact.rows(learned), data.quantized.rows(learned), size)
    after, held_out_after = unit_errors(module, data, size)
    return dataclasses.replace(report, after=after, held_out_after=held_out_after)


def _unit_data(task: Task, unit: Unit, floats: list[PausedForward], quantized: Arguments) -> UnitData:
    """The float unit's inputs and outputs beside the quantized network's arguments; moves the float passes behind the unit."""
    inner = inner_layers(unit, task.settings)
    arguments = Arguments.joined([waiting.arguments() for waiting in floats])
    targets, layers = [], []
    with listening(task.float_unet.get_submodule(unit.name), inner) as outputs:
        for waiting in floats:
            targets.append(waiting.run_unit())
            layers.append(dict(outputs))
            waiting.next_unit()
    layer_targets = {name: torch.cat([batch[name] for batch in layers]) for name in inner}
    return UnitData(quantized, arguments, torch.cat(targets), layer_targets, task.held_out, unit.kind == "attention")
