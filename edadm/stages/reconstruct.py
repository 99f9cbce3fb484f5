"""Reconstruct: rounding and step sizes learned unit by unit, and the quantized checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edadm.config.methods import INDEPENDENT, METHODS
from edadm.config.schema import Bits, Calibration, Model, Reconstruction
from edadm.config.stated import settings_of
from edadm.console import progress_bar
from edadm.errors import EdadmError
from edadm.stages.cost.work import (
    CHAIN,
    CODE,
    FP32,
    Cost,
    Learning,
    Memory,
    Passes,
    calibration_rows,
    rows_per_image,
)
from edadm.stages.inputs.provenance import SAMPLING, code_of, facts_of, sampling_of
from edadm.stages.inputs.task import Given, of_task, open_task

if TYPE_CHECKING:
    import torch

    from edadm.learning.task import Task
    from edadm.networks.units.unit import Unit
    from edadm.stages.cost.networks import Networks, Quantized

MODEL = ("architecture",)  # settings of it
SAMPLED = ("sampler", "schedule", "prediction", "conditioning")  # those of a correction; rows depend on them
_UNIT_ERRORS = (
    3  # how often all rows pass a unit beside learning: before it, with soft and with hard rounding
)
_FILES = 5  # the folder, the checkpoint, its lock, the losses and their facts
_WEIGHING = 120  # to weigh rows: 4 steps of 12 passes forward, and of 6 forward and back, which count three
_CORRECTIONS = 3  # and for its biases: the float unit, the quantized one, and the error afterwards


def run(
    model: Model,
    bits: Bits,
    settings: Reconstruction,
    given: Given,
    parts: Sequence[Path],
    output: Path,
    losses: Path,
    progress: Path,
    device: torch.device,
    label: str,
) -> None:
    """Learns unit by unit, and writes the quantized checkpoint.

    Args:
        model, bits, settings: the presets.
        given: the files, and how much of memory may be taken.
        parts: folders of finished units, from `reconstruct-part`.
        output: the checkpoint.
        losses: a table with the errors of every unit.
        progress: a folder for finished units, from which a killed run goes on.
        device: where.
        label: what progress lines call this run.
    """
    from edadm.artifacts import making
    from edadm.deploy.checkpoint import save_quantized
    from edadm.learning.unit_store import FolderUnitStore, write_losses
    from edadm.passes.methods import run_method

    made_from = of_task(model, bits, given)
    made_from["reconstruction"] = settings_of(settings)
    unit = facts_of("unit", made_from, device)
    if settings.correction is not None:
        made_from["model"] |= settings_of(model, *SAMPLED)
    known = facts_of("quantized", made_from, device)
    with making([output, losses], known, code_of("reconstruct", device), progress) as work:
        if work is None:
            return
        unit_store = FolderUnitStore(work.folder, *parts, known=unit)
        task = open_task(model, bits, settings, given, device, unit_store)
        with progress_bar(label, len(task.units), "units") as advance:
            task = dataclasses.replace(task, on_unit=advance)
            run_method(given.within_limits(task, work.folder))
        told = {"reconstruction": made_from["reconstruction"], "inputs": made_from["inputs"]}
        told |= {"device": known["device"], "edadm": known["edadm"]}
        if settings.correction is not None:
            told[SAMPLING] = sampling_of(model)
        with work.publishing() as partial:
            size = task.inputs.tensors["latents"].shape[2:]
            tables = _correction(task, model)
            save_quantized(task.quantized_unet, partial, model.architecture, bits, told, size, tables)
        with work.publishing(losses, facts_of("losses", made_from, device)) as partial:
            write_losses(partial, task.reports)


def _correction(task: Task, model: Model) -> dict[str, torch.Tensor] | None:
    """The tables of the correction that the settings ask for, from the rows that were learned from."""
    from edadm.passes.corrections.fit import fit_correction

    settings = task.settings
    if settings.correction is None:
        return None
    rows = task.inputs[: len(task.inputs) - task.held_out]
    networks = (task.float_unet, task.quantized_unet)
    return fit_correction(settings.correction, *networks, rows, model, settings.chain_batch_size).tensors()


def reconstruct_part(
    model: Model,
    bits: Bits,
    settings: Reconstruction,
    given: Given,
    part: int,
    output: Path,
    progress: Path,
    device: torch.device,
    label: str,
) -> None:
    """Learns every n-th unit on inputs of the float network, for `run` to put together.

    n is the preset's `jobs`.

    Args:
        model, bits, settings, given, progress, device, label: see `run`.
        part: which share of the units, from 0.
        output: the folder of finished units.

    Raises:
        EdadmError: units of the method wait for each other, or there is no such share.
    """
    from edadm.artifacts import making, refuse_to_replace
    from edadm.learning.unit_store import FolderUnitStore
    from edadm.passes.methods import run_method

    if not METHODS[settings.method].independent:
        raise EdadmError(
            f"units of method '{settings.method}' wait for each other and have no parts; "
            f"run `edadm reconstruct`, or set method: {' or '.join(INDEPENDENT)}"
        )
    if part >= settings.jobs:
        raise EdadmError(
            f"there is no part {part}; the preset has jobs: {settings.jobs}, and parts are counted from 0"
        )
    made_from = of_task(model, bits, given)
    made_from["reconstruction"] = settings_of(settings)
    known = facts_of("units", made_from | {"part": part}, device)
    unit = facts_of("unit", made_from, device)
    with making([output], known, code_of("reconstruct.reconstruct_part", device), progress) as work:
        if work is None:
            return
        refuse_to_replace(output, known)
        unit_store = FolderUnitStore(work.folder / "units", known=unit)
        task = open_task(model, bits, settings, given, device, unit_store)
        chosen = range(part, len(task.units), settings.jobs)
        with progress_bar(label, len(chosen), "units") as advance:
            task = dataclasses.replace(task, on_unit=advance, chosen=chosen)
            run_method(given.within_limits(task, work.folder))
        unit_store.seal(known)
        work.publish_folder(unit_store.folder)


def cost(
    name: str,
    networks: Networks,
    calibration: Calibration,
    bits: Bits,
    settings: Reconstruction,
    chosen: Sequence[Unit] | None = None,
) -> Cost:
    """The cost of a variant, with its parts where units are shared among jobs.

    Args:
        name: of the variant.
        networks: of the model.
        calibration, bits, settings: the variant's presets.
        chosen: units that are learned; all with quantized weights by default.
    """
    quantized, rows = networks.quantized(bits), calibration_rows(networks.model, calibration)
    correcting = _correcting(networks, calibration, settings)
    units = networks.learned_units(settings, bits) if chosen is None else list(chosen)
    method = METHODS[settings.method]
    if not method.learns or not units:
        held = Memory(weights=networks.parameters * FP32)
        return Cost("reconstruct", name, correcting, disk=quantized.bytes, files=_FILES, memory=held)
    precision, jobs = CHAIN + settings.precision, settings.jobs if method.independent else 1
    batch, calls = min(settings.chain_batch_size, rows), -(-rows // settings.chain_batch_size)
    passes = [Passes("float", precision, rows * jobs, batch, calls * jobs)]
    if not method.independent:
        passes.append(Passes("simulated", precision, rows, batch, calls))
    share = sum(networks.flops.get(unit.name, 0) for unit in units) / networks.flops[""]
    repeats = (
        _UNIT_ERRORS + _CORRECTIONS * settings.bias_correction + _WEIGHING * method.weighs_rows
    ) * share
    errors = Passes("simulated", precision, round(repeats * rows), batch, round(repeats * calls))
    size = min(settings.batch_size, calibration.size * rows_per_image(networks.model))
    return Cost(
        "reconstruct",
        name,
        (*passes, *correcting),
        (errors,),
        _learning(networks, units, settings, size),
        disk=quantized.bytes,
        files=_FILES + (settings.jobs > 1) * (3 * settings.jobs + len(units)),
        memory=memory(networks, quantized, settings, rows, [unit.name for unit in units]),
        bits=bits,
        settings=settings,
        shares=jobs,
    )


def _correcting(networks: Networks, calibration: Calibration, settings: Reconstruction) -> tuple[Passes, ...]:
    """The passes of both networks from which a correction is fitted."""
    if settings.correction is None:
        return ()
    rows = calibration.size * rows_per_image(networks.model)
    sizes = (rows, min(settings.chain_batch_size, rows), -(-rows // settings.chain_batch_size))
    return Passes("float", "fp32", *sizes), Passes("simulated", "fp32", *sizes)


def _learning(
    networks: Networks, units: Sequence[Unit], settings: Reconstruction, rows: int
) -> tuple[Learning, ...]:
    """The learning steps of units, each of so many rows."""
    from edadm.learning.task import settings_of as settings_of_unit

    steps = [settings_of_unit(unit, settings).iterations for unit in units]
    flops = [networks.flops.get(unit.name, 0) for unit in units]
    return tuple(Learning(*found, rows) for found in zip(units, flops, steps, strict=True))


def memory(
    networks: Networks, quantized: Quantized, settings: Reconstruction, rows: int, learned: Collection[str]
) -> Memory:
    """The device memory where all is kept there, at the fullest of the units that are learned."""
    weights = networks.parameters * FP32 + quantized.weights * (FP32 + CODE)
    need = networks.demand(settings, rows)
    kept = max(need.of_unit(unit) for unit in need.units if unit.name in learned)
    return Memory(weights, need.of_work(settings.batch_size, settings.chain_batch_size), kept)
