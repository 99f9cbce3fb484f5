"""From a checkpoint to a calibration set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edadm.commands.app import app
from edadm.commands.made import code_of, digests, facts_of, of_weights, source_of
from edadm.commands.opening import device_named, open_condition, open_prediction, preset_named
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
from edadm.config.stated import OF_TRAJECTORIES, settings_of
from edadm.console import progress_bar


@app.command()
def convert_checkpoint(
    model: ModelOption,
    output: OutputOption,
    part: Annotated[
        str, typer.Option(help="unet, autoencoder, or condition (class embedding or text encoder)")
    ] = "unet",
    config: ConfigOption = None,
) -> None:
    """Bring a part of a checkpoint into the layout of its module, checked against the preset's sizes."""
    from edadm.artifacts import making, save_tensors
    from edadm.artifacts.digest import canonical
    from edadm.config.sources import locate
    from edadm.networks.convert import convert_checkpoint

    preset = preset_named("models", model, config)
    known = facts_of("weights", of_weights(preset, part))
    source = [source_of(locate(preset.checkpoint)), settings_of(preset, "layout", "ema")]
    with making([output], known, canonical([code_of("convert-checkpoint"), source])) as work:
        if work is None:
            return
        state = convert_checkpoint(preset, part)
        with work.publishing() as partial:
            save_tensors(partial, state, known)


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
    from edadm.artifacts import making, refuse_to_replace
    from edadm.config.sources import locate_prompts
    from edadm.networks.convert import load_unet
    from edadm.networks.denoiser import Denoiser
    from edadm.networks.families import family_of
    from edadm.sampling.collect import collect, open_store

    preset, where = preset_named("models", model, config), device_named(device, threads)
    settings = settings_of(preset, *OF_TRAJECTORIES)
    inputs = digests(unet=unet, condition=condition, prompts=locate_prompts("given", preset))
    known = facts_of("trajectories", {"model": settings, "shard": shard, "inputs": inputs}, where)
    with making([output], known, code_of("collect-trajectories"), progress) as work:
        if work is None:
            return
        refuse_to_replace(output, known)
        contexts = open_condition(preset, condition, preset.trajectories.count, where)
        network = load_unet(preset.architecture, unet, where)
        denoise = Denoiser(network, contexts, preset.guidance, prediction=open_prediction(preset))
        store = open_store(work.folder / "store.zarr", preset, shard, contexts)
        with progress_bar(label, len(store.unfinished()), "batches") as advance:
            features = family_of(network).feature_module(network)
            collect(denoise, features, preset, store, where, lambda: advance(1), contexts)
        store.seal(known)
        work.publish_folder(store.path)


@app.command()
def select_calibration(
    trajectories: Annotated[
        list[Path],
        typer.Argument(exists=True, help="stores of consecutive shards, from collect-trajectories"),
    ],
    calibration: CalibrationOption,
    output: OutputOption,
    summary: Annotated[Path, typer.Option(help="JSON with the counts and curves per sampler step")],
    config: ConfigOption = None,
) -> None:
    """Pick one state of each trajectory; needs no network."""
    import torch

    from edadm.artifacts import as_json, making, save_tensors
    from edadm.calibration.conditions import with_context
    from edadm.calibration.select import select
    from edadm.sampling.shards import open_finished

    settings = preset_named("calibrations", calibration, config)
    stores, contents = open_finished(trajectories)
    before = (stores[0].stated() or {}).get("made_from", {})
    inputs = before.get("inputs", {}) | {"trajectories": contents}
    made_from = {name: before[name] for name in ("model",) if name in before}
    made_from |= {"calibration": settings_of(settings), "inputs": inputs}
    known = facts_of("calibration", made_from)
    with making([output, summary], known, code_of("select-calibration")) as work:
        if work is None:
            return
        groups = [store.group for store in stores]
        chosen, allocation = select(groups, settings)
        rows = {name: torch.from_numpy(array) for name, array in with_context(chosen, groups).items()}
        with work.publishing() as partial:
            save_tensors(partial, rows, known)
        curves = {name: curve.tolist() for name, curve in allocation.curves.items()}
        counts, timesteps = allocation.counts.tolist(), groups[0]["timesteps"][:].tolist()
        content = {"counts": counts, "timesteps": timesteps, "curves": curves}
        with work.publishing(summary) as partial:
            partial.write_text(as_json(content, facts_of("selection", made_from)))
