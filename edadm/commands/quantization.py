"""From a calibration set to a quantized checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from edadm.commands.app import app
from edadm.commands.made import code_of, digests, facts_of, of_task, refuse_other_calibration
from edadm.commands.opening import device_named, open_task, preset_named, within_limits
from edadm.commands.options import (
    BitsOption,
    ConfigOption,
    DeviceMemoryOption,
    DeviceOption,
    HostMemoryOption,
    LabelOption,
    ModelOption,
    OutputOption,
    ProgressOption,
    RangesOption,
    ReconstructionOption,
    SetOption,
    ThreadsOption,
    UnetOption,
)
from edadm.config.stated import settings_of
from edadm.console import progress_bar
from edadm.errors import EdadmError


@app.command()
def set_ranges(
    model: ModelOption,
    bits: BitsOption,
    unet: UnetOption,
    calibration_set: SetOption,
    output: OutputOption,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    label: LabelOption = "set-ranges",
) -> None:
    """Search the grid of every weight and activation."""
    from edadm.artifacts import making, read_tensors, save_tensors
    from edadm.deploy.checkpoint import grids, quantized_copy
    from edadm.networks.convert import load_unet
    from edadm.networks.inputs import Rows
    from edadm.passes.ranges import set_ranges

    where, widths = device_named(device, threads), preset_named("bits", bits, config)
    preset = preset_named("models", model, config)
    inputs = digests(unet=unet, calibration_set=calibration_set)
    refuse_other_calibration(calibration_set, preset, inputs["unet"])
    settings = {"model": settings_of(preset, "architecture"), "bits": settings_of(widths)}
    known = facts_of("ranges", settings | {"inputs": inputs}, where)
    with making([output], known, code_of("set-ranges")) as work:
        if work is None:
            return
        network = quantized_copy(load_unet(preset.architecture, unet, where), widths)
        needed = ("latents", "timesteps")
        chosen = read_tensors(calibration_set, "select-calibration", needed, where, "calibration")
        with progress_bar(label, len(chosen["latents"]), "samples") as advance:
            set_ranges(network, Rows.of(chosen), widths, advance)
        with work.publishing() as partial:
            save_tensors(partial, grids(network), known)


@app.command()
def reconstruct(
    model: ModelOption,
    bits: BitsOption,
    reconstruction: ReconstructionOption,
    unet: UnetOption,
    calibration_set: SetOption,
    ranges: RangesOption,
    output: OutputOption,
    losses: Annotated[Path, typer.Option(help="CSV with the errors of every unit")],
    progress: ProgressOption,
    parts: Annotated[
        list[Path] | None, typer.Option("--part", exists=True, help="finished units, from reconstruct-part")
    ] = None,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    device_memory: DeviceMemoryOption = None,
    host_memory: HostMemoryOption = None,
    label: LabelOption = "reconstruct",
) -> None:
    """Learn rounding and step sizes unit by unit, and write the quantized checkpoint."""
    from edadm.artifacts import making
    from edadm.deploy.checkpoint import save_quantized
    from edadm.learning.unit_store import FolderUnitStore, write_losses
    from edadm.passes.methods import run_method

    preset, widths = preset_named("models", model, config), preset_named("bits", bits, config)
    settings, where = preset_named("reconstructions", reconstruction, config), device_named(device, threads)
    made_from = of_task(preset, widths, unet, calibration_set, ranges)
    made_from["reconstruction"] = settings_of(settings)
    known, unit = facts_of("quantized", made_from, where), facts_of("unit", made_from, where)
    with making([output, losses], known, code_of("reconstruct"), progress) as work:
        if work is None:
            return
        unit_store = FolderUnitStore(work.folder, *parts or [], known=unit)
        task = open_task(preset, widths, settings, unet, calibration_set, ranges, where, unit_store)
        with progress_bar(label, len(task.units), "units") as advance:
            task = dataclasses.replace(task, on_unit=advance)
            run_method(within_limits(task, device_memory, host_memory, work.folder))
        told = {"reconstruction": made_from["reconstruction"], "inputs": made_from["inputs"]}
        told |= {"device": known["device"], "edadm": known["edadm"]}
        with work.publishing() as partial:
            save_quantized(task.quantized_unet, partial, preset.architecture, widths, told)
        with work.publishing(losses, facts_of("losses", made_from, where)) as partial:
            write_losses(partial, task.reports)


@app.command()
def reconstruct_part(
    model: ModelOption,
    bits: BitsOption,
    reconstruction: ReconstructionOption,
    unet: UnetOption,
    calibration_set: SetOption,
    ranges: RangesOption,
    output: Annotated[Path, typer.Option("--output", help="the folder of finished units to write")],
    progress: ProgressOption,
    part: Annotated[int, typer.Option(min=0, help="which share of the units, from 0")],
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    device_memory: DeviceMemoryOption = None,
    host_memory: HostMemoryOption = None,
    label: LabelOption = "reconstruct-part",
) -> None:
    """Learn every n-th unit on inputs of the float network, for `reconstruct` to put together; n is the preset's `jobs`."""
    from edadm.artifacts import making, refuse_to_replace
    from edadm.config.methods import INDEPENDENT, METHODS
    from edadm.learning.unit_store import FolderUnitStore
    from edadm.passes.methods import run_method

    preset, widths = preset_named("models", model, config), preset_named("bits", bits, config)
    settings, where = preset_named("reconstructions", reconstruction, config), device_named(device, threads)
    if not METHODS[settings.method].independent:
        raise EdadmError(
            f"units of method '{settings.method}' wait for each other and have no parts; run `edadm reconstruct`, "
            f"or set method: {' or '.join(INDEPENDENT)}"
        )
    if part >= settings.jobs:
        raise EdadmError(
            f"there is no part {part}; the preset has jobs: {settings.jobs}, and parts are counted from 0"
        )
    made_from = of_task(preset, widths, unet, calibration_set, ranges)
    made_from["reconstruction"] = settings_of(settings)
    known, unit = facts_of("units", made_from | {"part": part}, where), facts_of("unit", made_from, where)
    with making([output], known, code_of("reconstruct-part"), progress) as work:
        if work is None:
            return
        refuse_to_replace(output, known)
        unit_store = FolderUnitStore(work.folder / "units", known=unit)
        task = open_task(preset, widths, settings, unet, calibration_set, ranges, where, unit_store)
        chosen = range(part, len(task.units), settings.jobs)
        with progress_bar(label, len(chosen), "units") as advance:
            task = dataclasses.replace(task, on_unit=advance, chosen=chosen)
            run_method(within_limits(task, device_memory, host_memory, work.folder))
        unit_store.seal(known)
        work.publish_folder(unit_store.folder)
