"""From a calibration set to a quantized checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from edadm.commands.app import app
from edadm.commands.opening import description_of, device_named, open_task, preset_named, within_limits
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
    from safetensors.torch import save_file

    from edadm.artifacts import read_tensors, writing
    from edadm.deploy.checkpoint import grids, quantized_copy
    from edadm.models.convert import load_unet
    from edadm.reconstruction.observe import set_ranges

    where, widths = device_named(device, threads), preset_named("bits", bits, config)
    network = quantized_copy(load_unet(preset_named("models", model, config).architecture, unet, where), widths)
    chosen = read_tensors(calibration_set, "select-calibration", ("latents", "timesteps"), where)
    with progress_bar(label, len(chosen["latents"]), "samples") as advance:
        set_ranges(network, chosen["latents"], chosen["timesteps"], widths, advance, chosen.get("context"))
    with writing(output) as partial:
        save_file({name: tensor.cpu() for name, tensor in grids(network).items()}, partial)


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
    parts: Annotated[list[Path] | None, typer.Option("--part", exists=True, help="finished units, from reconstruct-part")] = None,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    device_memory: DeviceMemoryOption = None,
    host_memory: HostMemoryOption = None,
    label: LabelOption = "reconstruct",
) -> None:
    """Learn rounding and step sizes unit by unit, and write the quantized checkpoint."""
    from edadm.artifacts import finished, holding, same_work
    from edadm.deploy.checkpoint import save_quantized
    from edadm.reconstruction.methods import METHODS
    from edadm.reconstruction.shelf import FolderShelf, write_losses

    preset, widths = preset_named("models", model, config), preset_named("bits", bits, config)
    settings, where = preset_named("reconstructions", reconstruction, config), device_named(device, threads)
    with holding(progress) as folder:
        same_work(folder, description_of("reconstruct", settings, unet, ranges, calibration_set))
        task = open_task(preset, widths, settings, unet, calibration_set, ranges, where, FolderShelf(folder, *parts or []))
        with progress_bar(label, len(task.units), "units") as advance:
            METHODS[settings.method].learn(within_limits(dataclasses.replace(task, on_unit=advance), device_memory, host_memory, folder))
        save_quantized(task.quantized_unet, output, preset.architecture, widths, {"reconstruction": settings.model_dump(mode="json")})
        write_losses(losses, task.reports)
    finished(progress)


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
    from edadm.artifacts import finished, holding, same_work
    from edadm.reconstruction.methods.fbr_float_inputs import fbr_float_inputs_part
    from edadm.reconstruction.shelf import FolderShelf

    if output.exists():
        raise EdadmError(f"{output} is there already; remove it, or name another --output")
    preset, widths = preset_named("models", model, config), preset_named("bits", bits, config)
    settings, where = preset_named("reconstructions", reconstruction, config), device_named(device, threads)
    if part >= settings.jobs:
        raise EdadmError(f"there is no part {part}; the preset has jobs: {settings.jobs}, and parts are counted from 0")
    with holding(progress) as folder:
        same_work(folder, description_of("reconstruct-part", settings, unet, ranges, calibration_set))
        units = folder / "units"
        units.mkdir(exist_ok=True)  # a share may have no unit to learn
        task = open_task(preset, widths, settings, unet, calibration_set, ranges, where, FolderShelf(units))
        with progress_bar(label, len(task.units[part :: settings.jobs]), "units") as advance:
            fbr_float_inputs_part(within_limits(dataclasses.replace(task, on_unit=advance), device_memory, host_memory, folder), part)
        output.parent.mkdir(parents=True, exist_ok=True)
        units.rename(output)
    finished(progress)
