"""Reconstruct: rounding and step sizes learned unit by unit, and the quantized checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edadm.config.schema import Bits, Model, Reconstruction
from edadm.config.stated import settings_of
from edadm.console import progress_bar
from edadm.errors import EdadmError
from edadm.stages.inputs.provenance import code_of, facts_of
from edadm.stages.inputs.task import Given, of_task, open_task

if TYPE_CHECKING:
    import torch

MODEL = ("architecture",)  # settings of it


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
    known, unit = facts_of("quantized", made_from, device), facts_of("unit", made_from, device)
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
        with work.publishing() as partial:
            save_quantized(task.quantized_unet, partial, model.architecture, bits, told)
        with work.publishing(losses, facts_of("losses", made_from, device)) as partial:
            write_losses(partial, task.reports)


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
    """Learns every n-th unit on inputs of the float network, for `run` to put together; n is the preset's `jobs`.

    Args:
        model, bits, settings, given, progress, device, label: see `run`.
        part: which share of the units, from 0.
        output: the folder of finished units.

    Raises:
        EdadmError: units of the method wait for each other, or there is no such share.
    """
    from edadm.artifacts import making, refuse_to_replace
    from edadm.config.methods import INDEPENDENT, METHODS
    from edadm.learning.unit_store import FolderUnitStore
    from edadm.passes.methods import run_method

    if not METHODS[settings.method].independent:
        raise EdadmError(
            f"units of method '{settings.method}' wait for each other and have no parts; run `edadm reconstruct`, "
            f"or set method: {' or '.join(INDEPENDENT)}"
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
