"""From a calibration set to a quantized checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edadm.artifacts.failures import file_place
from edadm.commands.app import app
from edadm.commands.options import (
    BitsOption,
    ConfigOption,
    DeviceMemoryOption,
    DeviceOption,
    FolderOption,
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
    device_named,
    preset_named,
)


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
    from edadm.stages import set_ranges as stage

    preset, widths = preset_named("models", model, config), preset_named("bits", bits, config)
    where = device_named(device, threads)
    stage.run(preset, widths, unet, calibration_set, output, where, label)


@app.command()
def reconstruct(
    model: ModelOption,
    bits: BitsOption,
    reconstruction: ReconstructionOption,
    unet: UnetOption,
    calibration_set: SetOption,
    ranges: RangesOption,
    output: OutputOption,
    losses: Annotated[Path, typer.Option(callback=file_place, help="CSV with the errors of every unit")],
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
    from edadm.stages import reconstruct as stage
    from edadm.stages.inputs.task import Given

    preset, widths = preset_named("models", model, config), preset_named("bits", bits, config)
    settings, where = preset_named("reconstructions", reconstruction, config), device_named(device, threads)
    given = Given(unet, calibration_set, ranges, device_memory, host_memory)
    work = (output, losses, progress, where, label)
    stage.run(preset, widths, settings, given, parts or [], *work)


@app.command()
def reconstruct_part(
    model: ModelOption,
    bits: BitsOption,
    reconstruction: ReconstructionOption,
    unet: UnetOption,
    calibration_set: SetOption,
    ranges: RangesOption,
    output: FolderOption,
    progress: ProgressOption,
    part: Annotated[int, typer.Option(min=0, help="which share of the units, from 0")],
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    device_memory: DeviceMemoryOption = None,
    host_memory: HostMemoryOption = None,
    label: LabelOption = "reconstruct-part",
) -> None:
    """Learn every n-th unit on inputs of the float network, for `reconstruct` to put together.

    n is the preset's `jobs`.
    """
    from edadm.stages import reconstruct as stage
    from edadm.stages.inputs.task import Given

    preset, widths = preset_named("models", model, config), preset_named("bits", bits, config)
    settings, where = preset_named("reconstructions", reconstruction, config), device_named(device, threads)
    given = Given(unet, calibration_set, ranges, device_memory, host_memory)
    stage.reconstruct_part(preset, widths, settings, given, part, output, progress, where, label)
