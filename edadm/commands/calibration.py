"""From a checkpoint to a calibration set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edadm.commands.app import app
from edadm.commands.opening import description_of, device_named, open_condition, open_prediction, preset_named
from edadm.commands.options import (
    CalibrationOption,
    ConfigOption,
    DeviceOption,
    LabelOption,
    ModelOption,
    OutputOption,
    PartOption,
    ProgressOption,
    ThreadsOption,
    UnetOption,
)
from edadm.console import progress_bar
from edadm.errors import EdadmError


@app.command()
def convert_checkpoint(
    model: ModelOption,
    output: OutputOption,
    part: Annotated[str, typer.Option(help="unet, autoencoder, or condition (class embedding or text encoder)")] = "unet",
    config: ConfigOption = None,
) -> None:
    """Bring a part of a checkpoint into the layout of its module, checked against the preset's sizes."""
    from safetensors.torch import save_file

    from edadm.artifacts import writing
    from edadm.models.convert import convert_checkpoint

    state = convert_checkpoint(preset_named("models", model, config), part)
    with writing(output) as partial:
        save_file(state, partial)


@app.command()
def collect_trajectories(
    model: ModelOption,
    unet: UnetOption,
    output: OutputOption,
    progress: ProgressOption,
    condition: PartOption = None,
    shard: Annotated[int, typer.Option(help="which part of the runs, from 0")] = 0,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    label: LabelOption = "collect-trajectories",
) -> None:
    """Record full-precision sampler runs to zarr, batch by batch, with the feature distances that TDAC needs."""
    from edadm.artifacts import finished, holding, same_work
    from edadm.config.sources import locate_prompts
    from edadm.models.convert import load_unet
    from edadm.models.denoiser import Denoiser
    from edadm.models.unet import feature_module
    from edadm.sampling.collect import collect, open_store

    if output.exists():
        raise EdadmError(f"{output} is there already; remove it, or name another --output")
    preset = preset_named("models", model, config)
    where = device_named(device, threads)
    contexts = open_condition(preset, condition, preset.trajectories.count, where)
    network = load_unet(preset.architecture, unet, where)
    denoise = Denoiser(network, contexts, preset.guidance, prediction=open_prediction(preset))
    with holding(progress) as folder:
        given = [file for file in (condition, locate_prompts("given", preset)) if file]
        same_work(folder, description_of("collect-trajectories", preset, unet, *given))
        store = open_store(folder / "store.zarr", preset, shard, contexts)
        with progress_bar(label, len(store.unfinished()), "batches") as advance:
            collect(denoise, feature_module(network), preset, store, where, lambda: advance(1), contexts)
        output.parent.mkdir(parents=True, exist_ok=True)
        (folder / "store.zarr").rename(output)
    finished(progress)


@app.command()
def select_calibration(
    trajectories: Annotated[list[Path], typer.Argument(exists=True, help="stores of consecutive shards, from collect-trajectories")],
    calibration: CalibrationOption,
    output: OutputOption,
    summary: Annotated[Path, typer.Option(help="JSON with the counts and curves per sampler step")],
    config: ConfigOption = None,
) -> None:
    """Pick one state of each trajectory; needs no network."""
    import zarr
    from safetensors.numpy import save_file

    from edadm.artifacts import writing, writing_json
    from edadm.calibration.conditions import with_context
    from edadm.calibration.select import select

    settings = preset_named("calibrations", calibration, config)
    groups = [zarr.open_group(path, mode="r") for path in trajectories]
    chosen, allocation = select(groups, settings)
    with writing(output) as partial:
        save_file(with_context(chosen, groups), partial)
    curves = {name: curve.tolist() for name, curve in allocation.curves.items()}
    timesteps = groups[0]["timesteps"][:].tolist()
    writing_json(summary, {"counts": allocation.counts.tolist(), "timesteps": timesteps, "curves": curves})
