"""The command line: one subcommand per rule of the workflow. Parse, load, call, save."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edadm.console import progress_bar, say
from edadm.errors import EdadmError
from edadm.training.commands import app as train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Quantize diffusion models after training. Each command is one stage of the workflow; `snakemake` runs them all.",
)
app.add_typer(train, name="train")
timing = typer.Typer(no_args_is_help=True, help="Times and bytes, as ratios within one run.")
app.add_typer(timing, name="benchmark")

ModelOption = Annotated[str, typer.Option("--model", help="a model preset, by name or as JSON")]
CalibrationOption = Annotated[str, typer.Option("--calibration", help="a calibration preset, by name or as JSON")]
BitsOption = Annotated[str, typer.Option("--bits", help="a bits preset, by name or as JSON")]
ReconstructionOption = Annotated[str, typer.Option("--reconstruction", help="a reconstruction preset, by name or as JSON")]
EvaluationOption = Annotated[str, typer.Option("--evaluation", help="an evaluation preset, by name or as JSON")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="a YAML file with presets of your own")]
UnetOption = Annotated[Path, typer.Option("--unet", exists=True, help="float weights, from convert-checkpoint")]
SetOption = Annotated[Path, typer.Option("--calibration-set", exists=True, help="from select-calibration")]
RangesOption = Annotated[Path, typer.Option("--ranges", exists=True, help="from set-ranges")]
ProgressOption = Annotated[Path, typer.Option("--progress", help="folder for finished pieces, from which a killed run goes on")]
OutputOption = Annotated[Path, typer.Option("--output", help="the file to write")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, ... or auto")]
ThreadsOption = Annotated[int, typer.Option("--threads", help="CPU threads; results are equal bit for bit only for equal numbers")]
PartOption = Annotated[Path | None, typer.Option(exists=True, help="of models that have one, from convert-checkpoint --part")]
DeviceMemoryOption = Annotated[float | None, typer.Option(min=0, help="GiB that may be kept on the device; else what is free")]
HostMemoryOption = Annotated[float | None, typer.Option(min=0, help="GiB that may be kept in host memory; else what is free")]
LabelOption = Annotated[str, typer.Option("--label", help="what progress lines call this run")]


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

    state = convert_checkpoint(_preset("models", model, config), part)
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
    from edadm.sampling.collect import collect, open_store

    if output.exists():
        raise EdadmError(f"{output} is there already; remove it, or name another --output")
    preset = _preset("models", model, config)
    where = _device(device, threads)
    contexts = _condition(preset, condition, preset.trajectories.count, where)
    network = load_unet(preset.architecture, unet, where)
    denoise = Denoiser(network, contexts, preset.guidance)
    with holding(progress) as folder:
        given = [file for file in (condition, locate_prompts("given", preset)) if file]
        same_work(folder, _description("collect-trajectories", preset, unet, *given))
        store = open_store(folder / "store.zarr", preset, shard, contexts)
        with progress_bar(label, len(store.unfinished()), "batches") as advance:
            collect(denoise, network.mid_block.attentions[0], preset, store, where, lambda: advance(1), contexts)
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

    settings = _preset("calibrations", calibration, config)
    groups = [zarr.open_group(path, mode="r") for path in trajectories]
    chosen, allocation = select(groups, settings)
    with writing(output) as partial:
        save_file(with_context(chosen, groups), partial)
    curves = {name: curve.tolist() for name, curve in allocation.curves.items()}
    timesteps = groups[0]["timesteps"][:].tolist()
    writing_json(summary, {"counts": allocation.counts.tolist(), "timesteps": timesteps, "curves": curves})


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

    where, widths = _device(device, threads), _preset("bits", bits, config)
    network = quantized_copy(load_unet(_preset("models", model, config).architecture, unet, where), widths)
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

    preset, widths = _preset("models", model, config), _preset("bits", bits, config)
    settings, where = _preset("reconstructions", reconstruction, config), _device(device, threads)
    with holding(progress) as folder:
        same_work(folder, _description("reconstruct", settings, unet, ranges, calibration_set))
        task = _task(preset, widths, settings, unet, calibration_set, ranges, where, FolderShelf(folder, *parts or []))
        with progress_bar(label, len(task.units), "units") as advance:
            METHODS[settings.method].learn(_within(dataclasses.replace(task, on_unit=advance), device_memory, host_memory, folder))
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
    preset, widths = _preset("models", model, config), _preset("bits", bits, config)
    settings, where = _preset("reconstructions", reconstruction, config), _device(device, threads)
    if part >= settings.jobs:
        raise EdadmError(f"there is no part {part}; the preset has jobs: {settings.jobs}, and parts are counted from 0")
    with holding(progress) as folder:
        same_work(folder, _description("reconstruct-part", settings, unet, ranges, calibration_set))
        units = folder / "units"
        units.mkdir(exist_ok=True)  # a share may have no unit to learn
        task = _task(preset, widths, settings, unet, calibration_set, ranges, where, FolderShelf(units))
        with progress_bar(label, len(task.units[part :: settings.jobs]), "units") as advance:
            fbr_float_inputs_part(_within(dataclasses.replace(task, on_unit=advance), device_memory, host_memory, folder), part)
        output.parent.mkdir(parents=True, exist_ok=True)
        units.rename(output)
    finished(progress)


@app.command()
def generate(
    model: ModelOption,
    evaluation: EvaluationOption,
    weights: Annotated[Path, typer.Option(exists=True, help="float weights or a quantized checkpoint")],
    output: OutputOption,
    autoencoder: PartOption = None,
    condition: PartOption = None,
    shard: Annotated[int, typer.Option(help="which part of the images, from 0")] = 0,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    label: LabelOption = "generate",
) -> None:
    """Generate images, each from the noise of its own index."""
    import numpy as np

    from edadm.artifacts import writing
    from edadm.models.denoiser import Denoiser
    from edadm.sampling.generate import generate_images, shard_range

    preset, settings = _preset("models", model, config), _preset("evaluations", evaluation, config)
    where = _device(device, threads)
    contexts = _condition(preset, condition, settings.images, where)
    decode = _decoder(preset, autoencoder, where)
    network = _load_any(preset.architecture, weights, where, settings.backend)
    if settings.compiled:
        network.compile()
    denoise = Denoiser(network, contexts, preset.guidance, settings.precision)
    indices = shard_range(settings.images, settings.shards, shard)
    run = (preset.sampler, preset.schedule, indices, preset.latent_shape, settings.seed, settings.batch_size, where)
    with progress_bar(label, len(indices), "images") as advance:
        images = generate_images(denoise, *run, advance, decode, preset.pixels)
    with writing(output) as partial, open(partial, "wb") as file:
        np.save(file, images.numpy())


@app.command()
def write_prompts(
    model: ModelOption,
    evaluation: EvaluationOption,
    output: OutputOption,
    config: ConfigOption = None,
) -> None:
    """Write the prompts of all images of an evaluation in order, as a JSON list; CLIP scores compare images with them."""
    from edadm.artifacts import writing_json
    from edadm.models.condition import prompts_of

    preset, settings = _preset("models", model, config), _preset("evaluations", evaluation, config)
    if preset.conditioning is None or preset.conditioning.kind != "text":
        raise EdadmError("this model takes no prompts; name one with conditioning.kind: text")
    writing_json(output, prompts_of(preset.conditioning, settings.images))


@app.command()
def evaluate(
    samples: Annotated[list[Path], typer.Argument(exists=True, help="image files of all shards, in order")],
    evaluation: EvaluationOption,
    output: OutputOption,
    references: Annotated[list[Path] | None, typer.Option("--reference", exists=True, help="full-precision image files, for PSNR")] = None,
    statistics: Annotated[Path | None, typer.Option(exists=True, help="of the preset's real images, from reference-statistics")] = None,
    prompts: Annotated[Path | None, typer.Option(exists=True, help="of the images, from write-prompts or the preset's")] = None,
    config: ConfigOption = None,
    threads: ThreadsOption = 1,
    label: LabelOption = "evaluate",
) -> None:
    """Score images as the preset says: FID, sFID, IS, KID, precision, recall, CLIP score; and PSNR to full precision."""
    from dataclasses import replace

    from edadm.artifacts import writing_json
    from edadm.config.scoring import scoring
    from edadm.metrics.datasets import ShardedImages
    from edadm.metrics.evaluate import evaluate

    _device("auto", threads)
    settings = _preset("evaluations", evaluation, config)
    settings = settings.model_copy(update={"prompts": str(prompts)}) if prompts else settings
    files = scoring(settings)
    files = replace(files, reference=statistics) if statistics else files
    if files.reference and files.reference.is_dir():
        raise EdadmError(
            f"{files.reference} is a folder; make its statistics with `edadm reference-statistics`, and name them as --statistics"
        )
    if files.absent:
        say(f"the bundled classifier scores instead of '{files.instead_of}': {files.absent}")
    images, compared = ShardedImages(samples), ShardedImages(references) if references else None
    with progress_bar(label, len(images), "images") as advance:
        scores = evaluate(images, compared, settings, files, advance)
    writing_json(output, scores)


@timing.command("unet")
def benchmark_unet(
    model: ModelOption,
    weights: Annotated[list[str], typer.Argument(help="VARIANT=FILE, full precision (fp32=FILE) among them")],
    output: OutputOption,
    batch_size: int = 16,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Time one network evaluation of every variant in one run, and count the bytes of their files.

    On a CPU also with integers, and full precision with bf16.
    """
    from edadm.artifacts import writing_json
    from edadm.benchmark.cpu import INTEGER, cpu_rivals, parity, shares_of_time
    from edadm.benchmark.unet import step_latency

    preset, where = _preset("models", model, config), _device(device, threads)
    files = {variant: Path(file) for variant, _, file in (pair.partition("=") for pair in weights)}
    if absent := [pair for pair in weights if not files[pair.partition("=")[0]].is_file()]:
        raise EdadmError(f"'{absent[0]}' names no file; write VARIANT=FILE")
    networks = {variant: _load_any(preset.architecture, file, where) for variant, file in files.items()}
    rivals = cpu_rivals(networks) if where.type == "cpu" else {}
    shape = (batch_size, *preset.latent_shape)
    times = step_latency(networks | rivals, shape, context_shape=preset.context_shape)
    variants: dict[str, Any] = {variant: {"bytes": file.stat().st_size} | times[variant] for variant, file in files.items()}
    for rival in rivals:
        variant, _, arithmetic = rival.rpartition("/")
        variants[variant][arithmetic] = times[rival] | {"shares": shares_of_time(rivals[rival], shape, preset.context_shape)}
        if arithmetic == INTEGER:
            variants[variant][arithmetic]["parity"] = parity(networks[variant], rivals[rival], shape, preset.context_shape)
    writing_json(output, {"batch_size": batch_size, "threads": threads, "device": str(where), "variants": variants})


@timing.command("calibration")
def benchmark_calibration(
    model: ModelOption,
    bits: BitsOption,
    reconstruction: ReconstructionOption,
    unet: UnetOption,
    calibration_set: SetOption,
    ranges: RangesOption,
    output: OutputOption,
    plain_iterations: Annotated[int, typer.Option(min=1, help="steps per unit of the plain baseline")] = 50,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Time the reconstruction of a network, and, in the same run, that of plain eager PyTorch; nothing is kept but the times."""
    from edadm.artifacts import writing_json
    from edadm.benchmark.calibration import compare
    from edadm.reconstruction.methods import METHODS

    preset, widths = _preset("models", model, config), _preset("bits", bits, config)
    settings, where = _preset("reconstructions", reconstruction, config), _device(device, threads)
    if settings.method == "none":
        raise EdadmError("method 'none' learns nothing that could be timed; name another --reconstruction")
    files = (unet, calibration_set, ranges, where)
    result = compare(lambda changed, shelf: _task(preset, widths, changed, *files, shelf), METHODS, settings, plain_iterations)
    say(f"{result['engine']['ms_per_step']:.3f} ms per step; plain eager PyTorch takes {result['ratio']:.1f} times as long")
    writing_json(output, result)


@timing.command("kernels")
def benchmark_kernels(
    model: ModelOption,
    output: OutputOption,
    bits: BitsOption = "official_w8a8",
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    tiles: Annotated[Path | None, typer.Option(help="search for the fastest tiles, and write them here")] = None,
    config: ConfigOption = None,
) -> None:
    """Time every integer layer of a network beside cuDNN's and cuBLAS's bf16, on random numbers; needs a GPU."""
    from edadm.artifacts import writing_json
    from edadm.benchmark.integer import random_inputs, random_integer_unet
    from edadm.benchmark.kernels import measure, problems_of

    preset, where = _preset("models", model, config), _gpu()
    inputs = random_inputs(preset, batch_size, where)
    problems = problems_of(random_integer_unet(preset, _preset("bits", bits, config), where), *inputs)
    rows = measure(problems, search=tiles is not None)
    if tiles is not None:
        writing_json(tiles, {row["key"]: row["tiles"] for row in rows})
    writing_json(output, {"model": model, "batch_size": batch_size, "rows": rows})


@timing.command("integer")
def benchmark_integer(
    model: ModelOption,
    output: OutputOption,
    bits: Annotated[list[str], typer.Option("--bits", help="a bits preset; several are measured in one run")],
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    mode: Annotated[str, typer.Option(help="of torch.compile: default or max-autotune-no-cudagraphs")] = "default",
    config: ConfigOption = None,
) -> None:
    """Time a network with random weights computed with integers, in bf16, TF32 and fp32, in one run; needs a GPU."""
    from edadm.artifacts import writing_json
    from edadm.benchmark.integer import compare_with_integers, random_inputs
    from edadm.models.random_weights import random_unet

    preset, where = _preset("models", model, config), _gpu()
    widths = {name: _preset("bits", name, config) for name in bits}
    result = compare_with_integers(random_unet(preset, where), widths, random_inputs(preset, batch_size, where), mode)
    for name, row in result["networks"].items():
        say(
            f"{name}: {row['ms']:.2f} ms, {row['samples_per_second']:.0f} samples per second, {row['weight_bytes'] / 1e6:.1f} MB of weights"
        )
    writing_json(output, {"model": model} | result)


@timing.command("families")
def benchmark_families(
    output: OutputOption,
    families: Annotated[list[str] | None, typer.Option("--family", help="a published model preset; all five by default")] = None,
    rows: Annotated[int, typer.Option(min=2, help="trajectories and calibration samples")] = 32,
    steps: Annotated[int, typer.Option(min=2, help="of the sampler")] = 5,
    units: Annotated[int, typer.Option(min=1, help="units that are learned")] = 5,
    iterations: Annotated[int, typer.Option(min=1, help="learning steps per unit")] = 50,
    images: Annotated[int, typer.Option(min=1, help="images per network and precision")] = 4,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Run a small part of each published run at full size with random weights: time and memory per stage, beside the plan's."""
    from edadm.artifacts import writing_json
    from edadm.benchmark.full_size import all_families, as_markdown
    from edadm.benchmark.scaled import FAMILIES, Scale

    if unknown := [name for name in families or () if name not in FAMILIES]:
        raise EdadmError(f"there is no published model '{unknown[0]}'; known are {', '.join(FAMILIES)}")
    chosen = {name: (_preset("models", name, config), FAMILIES[name]) for name in families or FAMILIES}
    scale = Scale(rows, steps, units, iterations, images)
    result = all_families(chosen, scale, _device(device, threads), lambda so_far: writing_json(output, so_far))
    typer.echo(as_markdown(result))


@app.command()
def reference_statistics(
    images: Annotated[Path, typer.Option(exists=True, file_okay=False, help="folder of real images, sub-folders included")],
    output: OutputOption,
    name: Annotated[str, typer.Option(help="what reports call this set")],
    extractor: Annotated[str, typer.Option(help="cifar10_classifier, inception or pytorch_fid")] = "cifar10_classifier",
    weights: Annotated[Path | None, typer.Option(exists=True, help="the extractor's weights, if they are not bundled")] = None,
    resolution: Annotated[int | None, typer.Option(min=1, help="side to which images are cropped and resized; else as they are")] = None,
    keep_features: Annotated[int, typer.Option(min=0, help="real images whose features are kept, for KID, precision and recall")] = 0,
    threads: ThreadsOption = 1,
    label: LabelOption = "reference-statistics",
) -> None:
    """Statistics of real images, against which generated ones are scored."""
    from edadm.config.schema import Evaluation
    from edadm.metrics.datasets import FolderImages, preparation
    from edadm.metrics.references import write_reference

    _device("auto", threads)
    if extractor not in (known := Evaluation.model_json_schema()["properties"]["extractor"]["enum"]):
        raise EdadmError(f"there is no extractor '{extractor}'; known are {', '.join(known)}")
    real = FolderImages(images, resolution)
    facts = {"set": name, "preparation": preparation(resolution), "files": real.digest()}
    with progress_bar(label, len(real), "images") as advance:
        write_reference(output, real, extractor, weights, facts, keep_features, threads - 1, advance=advance)


@app.command()
def export(
    weights: Annotated[Path, typer.Argument(exists=True, help="a quantized checkpoint")],
    output: Annotated[Path, typer.Option(help="the folder or file to write")],
    target: Annotated[
        str,
        typer.Option("--format", help="diffusers: a folder for from_pretrained; onnx, onnx_float_attention: a file of integers"),
    ] = "diffusers",
    precision: Annotated[str, typer.Option(help="of diffusers' weights: fp16, bf16 or fp32")] = "fp16",
) -> None:
    """Write a quantized checkpoint for other programs: with floating-point weights and activations, or as an ONNX graph of integers."""
    from edadm.deploy.export import export

    export(weights, output, target, precision)


@app.command()
def download(
    name: Annotated[str | None, typer.Argument(help="which file; without it, all are listed")] = None,
    output: Annotated[Path | None, typer.Option(help="where to put it; else where presets look for it")] = None,
) -> None:
    """Fetch public weights or reference data; goes on where it broke off. No other command downloads anything."""
    from edadm.config.downloads import DOWNLOADS
    from edadm.config.fetch import fetch, find_download

    if name is None:
        for key, entry in DOWNLOADS.items():
            typer.echo(f"{key}: {entry.what}, to {entry.path}; {entry.checksum if entry.checksum != 'unknown' else 'checksum unknown'}")
        return
    entry = find_download(name)
    fetch(entry, output or Path(entry.path))


@app.command()
def plan(
    config: Annotated[Path, typer.Option("--config", help="a configuration file; its runs are planned")] = Path("config.yaml"),
    model: Annotated[list[str] | None, typer.Option("--model", help="only the run of this model; may be repeated")] = None,
    probe: Annotated[bool, typer.Option(help="estimate times from a short probe of this machine")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="bytes and seconds as JSON")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Say what the runs of a configuration will cost, before anything runs: disk, memory, network evaluations, time per stage."""
    import json

    from edadm.config.load import load_config
    from edadm.metrics.rate import feature_network
    from edadm.planning.plan import chosen_runs, plan_run
    from edadm.planning.show import as_table

    settings = load_config(config)
    where = _device(device, threads) if probe else None
    plans = [plan_run(run, settings, where, feature_network) for run in chosen_runs(settings, model)]
    typer.echo(json.dumps(plans, indent=1) if as_json else "\n\n".join(map(as_table, plans)))


@app.command()
def report(
    results: Annotated[Path, typer.Option(help="the results folder")],
    output: OutputOption,
    config: Annotated[str, typer.Option(help="a configuration file, or a configuration as JSON")] = "config.yaml",
) -> None:
    """Write the self-contained HTML page."""
    import json

    from edadm.config.load import described_runs, load_config
    from edadm.report.page import write_page

    settings = load_config(json.loads(config) if config.lstrip().startswith("{") else Path(config))
    write_page(results, described_runs(settings), output)


@app.command()
def schema(output: OutputOption) -> None:
    """Write the JSON schema of config.yaml, for editors."""
    from edadm.artifacts import writing_json
    from edadm.config.schema import json_schema

    writing_json(output, json_schema())


def _preset(kind: str, text: str, config: Path | None) -> Any:
    """A preset by name, from the package or the user's file, or given as JSON."""
    from edadm.config.load import find_preset

    return find_preset(kind, text, config)


def _device(name: str, threads: int) -> Any:
    """The torch device, after setting the number of CPU threads."""
    import torch

    torch.set_num_threads(threads)
    try:
        device = torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    except RuntimeError:
        raise EdadmError(f"there is no kind of device '{name}'; use cpu, cuda, cuda:1, ... or auto") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EdadmError(f"this machine has no device '{name}'; use cpu or auto")
    return device


def _gpu() -> Any:
    """The first CUDA device."""
    import torch

    if not torch.cuda.is_available():
        raise EdadmError("this times kernels of a CUDA GPU, and there is none here; run it on a machine that has one")
    return _device("cuda", 1)


def _task(model: Any, widths: Any, settings: Any, unet: Path, calibration_set: Path, ranges: Path, where: Any, shelf: Any) -> Any:
    """A float and a quantized network side by side, and the rows to learn from."""
    import torch

    from edadm.artifacts import read_tensors
    from edadm.deploy.checkpoint import quantized_copy, set_grids
    from edadm.models.convert import load_unet
    from edadm.models.denoiser import network_inputs
    from edadm.models.units import trace_units
    from edadm.reconstruction.chain import Task, refuse_idle_patterns
    from edadm.reconstruction.methods import METHODS

    network = load_unet(model.architecture, unet, where)
    quantized = quantized_copy(network, widths)
    set_grids(quantized, read_tensors(ranges, "set-ranges", device=where))
    units = trace_units(network, METHODS[settings.method].by_layer, settings.exclude)
    refuse_idle_patterns(units, settings)
    rows = read_tensors(calibration_set, "select-calibration", ("latents", "timesteps"), where)
    names = [name for name in ("latents", "timesteps", "context") if name in rows]
    held_out = {name: rows.get(f"held_out_{name}", rows[name][:0]) for name in names}
    inputs = network_inputs({name: torch.cat([rows[name], held_out[name]]) for name in names})
    return Task(network, quantized, units, inputs, len(held_out["latents"]), settings, shelf)


def _within(task: Any, device_memory: float | None, host_memory: float | None, progress: Path) -> Any:
    """The task with limits of memory; a killed process leaves at most an empty folder for files, which goes here."""
    import shutil

    from edadm.config.schema import Memory

    scratch = progress / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    return dataclasses.replace(task, memory=Memory(device=device_memory, host=host_memory), scratch=scratch)


def _load_any(architecture: Any, weights: Path, device: Any, backend: str = "simulated") -> Any:
    """A float or a quantized U-Net, whichever the file holds."""
    import torch

    from edadm.deploy.checkpoint import is_quantized, load_quantized
    from edadm.deploy.lower import lower
    from edadm.models.convert import load_unet

    if not is_quantized(weights):
        return load_unet(architecture, weights, device)
    network = load_quantized(weights, device)
    return lower(network) if backend == "integer" else network


def _condition(model: Any, weights: Path | None, images: int, device: Any) -> Any:
    """What the model is told about each of its images, or None if it takes no condition."""
    from edadm.models.condition import make_condition
    from edadm.models.convert import load_condition_network

    if model.conditioning is None:
        return None
    if weights is None:
        raise EdadmError("this model takes a condition; give its weights with --condition (from convert-checkpoint --part condition)")
    return make_condition(load_condition_network(model, weights, device), model.conditioning, images)


def _decoder(model: Any, weights: Path | None, device: Any) -> Any:
    """From latents to images; a model of pixels has them already."""
    from edadm.models.convert import load_decoder

    if model.autoencoder is None:
        return lambda latents: latents
    if weights is None:
        raise EdadmError("this model makes latents; give its decoder with --autoencoder (from convert-checkpoint --part autoencoder)")
    return load_decoder(model, weights, device)


def _description(stage: str, settings: Any, *files: Path) -> str:
    """Code, settings and inputs of a stage, by which finished pieces are known to belong to the same work."""
    import hashlib

    from edadm.config.fingerprint import stage_fingerprint

    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return "\n".join([stage_fingerprint(stage), settings.model_dump_json(), *digests])


def main() -> None:
    """The entry point of `edadm`."""
    try:
        app()
    except EdadmError as error:
        say(f"edadm: {error}")
        sys.exit(2)
