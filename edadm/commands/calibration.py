"""From a checkpoint to a calibration set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edadm.artifacts.failures import file_place
from edadm.commands.app import app
from edadm.commands.options import (
    CalibrationOption,
    ConfigOption,
    DeviceOption,
    FolderOption,
    GraphsOption,
    LabelOption,
    ModelOption,
    OutputOption,
    PartOption,
    ProgressOption,
    ThreadsOption,
    UnetOption,
    device_named,
    preset_named,
)
from edadm.errors import EdadmError


@app.command()
def convert_checkpoint(
    model: ModelOption,
    output: OutputOption,
    part: Annotated[
        str, typer.Option(help="unet, autoencoder, or condition (class embedding or text encoder)")
    ] = "unet",
    lora: Annotated[
        list[str] | None,
        typer.Option(
            help="a LoRA to merge into the weights, as FILE or FILE:STRENGTH (else 1); may be repeated",
            metavar="FILE[:STRENGTH]",
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Bring a part of a checkpoint into the layout of its module, checked against the preset's sizes."""
    from edadm.stages import convert

    preset = preset_named("models", model, config)
    if part not in preset.parts:
        raise EdadmError(f"--part: the model has no '{part}'; it has {', '.join(preset.parts)}")
    convert.run(preset, part, output, tuple(lora or ()))


@app.command()
def collect_trajectories(
    model: ModelOption,
    unet: UnetOption,
    output: FolderOption,
    progress: ProgressOption,
    condition: PartOption = None,
    shard: Annotated[int, typer.Option(help="which part of the runs, from 0")] = 0,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    label: LabelOption = "collect-trajectories",
    graphs: GraphsOption = True,
) -> None:
    """Record full-precision sampler runs to zarr, batch by batch, with the features that TDAC needs."""
    from edadm.stages import collect

    preset, where = preset_named("models", model, config), device_named(device, threads)
    collect.run(preset, unet, condition, shard, output, progress, where, label, graphs)


@app.command()
def select_calibration(
    trajectories: Annotated[
        list[Path],
        typer.Argument(exists=True, help="stores of consecutive shards, from collect-trajectories"),
    ],
    calibration: CalibrationOption,
    output: OutputOption,
    summary: Annotated[
        Path, typer.Option(callback=file_place, help="JSON with the counts and curves per sampler step")
    ],
    config: ConfigOption = None,
) -> None:
    """Pick one state of each trajectory; needs no network."""
    from edadm.stages import select

    select.run(trajectories, preset_named("calibrations", calibration, config), output, summary)
