"""Times and bytes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from edadm.artifacts.failures import file_place
from edadm.commands.app import timing
from edadm.commands.options import (
    BitsOption,
    ConfigOption,
    DeviceOption,
    ModelOption,
    OutputOption,
    PartOption,
    RangesOption,
    ReconstructionOption,
    SetOption,
    ThreadsOption,
    UnetOption,
    device_named,
    first_gpu,
    preset_named,
)
from edadm.commands.workflow import PROJECT
from edadm.config.backends import DEFAULT
from edadm.console import say
from edadm.errors import EdadmError


@timing.command("unet")
def benchmark_unet(
    model: ModelOption,
    weights: Annotated[list[str], typer.Argument(help="VARIANT=FILE, full precision (fp32=FILE) among them")],
    output: OutputOption,
    batch_size: int = 16,
    backends: Annotated[
        list[str] | None,
        typer.Option(
            "--backend", help="on a CPU: to time quantized variants with as well; integer is always"
        ),
    ] = None,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Time one network evaluation of every variant in one run, and count the bytes of their files.

    On a CPU also with integers, and full precision with bf16.
    """
    from edadm.stages import benchmark

    preset, where = preset_named("models", model, config), device_named(device, threads)
    files = {variant: Path(file) for variant, _, file in (pair.partition("=") for pair in weights)}
    if absent := [pair for pair in weights if not files[pair.partition("=")[0]].is_file()]:
        raise EdadmError(f"'{absent[0]}' names no file; write VARIANT=FILE")
    benchmark.run(preset, files, backends or [], batch_size, threads, output, where)


@timing.command("errors")
def benchmark_errors(
    trajectories: Annotated[Path, typer.Argument(exists=True, help="a shard of recorded trajectories")],
    model: ModelOption,
    unet: UnetOption,
    weights: Annotated[Path, typer.Option(exists=True, help="a quantized checkpoint, from reconstruct")],
    output: OutputOption,
    condition: PartOption = None,
    backends: Annotated[
        list[str] | None, typer.Option("--backend", help="by which predictions are computed; simulated")
    ] = None,
    rows: Annotated[int, typer.Option(min=2, help="states of every step")] = 64,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Compare a quantized network's predictions with full precision's at every step.

    Bias and variance apart, in shares of the prediction's mean square.
    """
    from edadm.stages import benchmark

    preset, where = preset_named("models", model, config), device_named(device, threads)
    files = (unet, weights, condition, trajectories)
    benchmark.errors(preset, *files, backends or [DEFAULT], rows, output, where)


@timing.command("sensitivity")
def benchmark_sensitivity(
    model: ModelOption,
    bits: BitsOption,
    unet: UnetOption,
    output: OutputOption,
    condition: PartOption = None,
    images: Annotated[int, typer.Option(min=1, help="images that are compared")] = 16,
    share: Annotated[
        float, typer.Option(min=0, help="of the weights' bytes, to spend on layers with 8 bits")
    ] = 0.03,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Measure what each layer's weights alone cost in images, and name those worth 8 bits.

    What it prints is for `layers` of a preset of bits.
    """
    from edadm.stages import benchmark

    preset, widths = preset_named("models", model, config), preset_named("bits", bits, config)
    where = device_named(device, threads)
    benchmark.sensitivity(preset, widths, unet, condition, images, share, output, where)


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
    """Time the reconstruction of a network, and, in the same run, that of plain eager PyTorch.

    Nothing is kept but the times.
    """
    from edadm.artifacts import writing_json
    from edadm.benchmark.calibration import compare
    from edadm.config.methods import METHODS
    from edadm.stages.inputs.task import Given, open_task

    preset, widths = preset_named("models", model, config), preset_named("bits", bits, config)
    settings, where = preset_named("reconstructions", reconstruction, config), device_named(device, threads)
    if not METHODS[settings.method].learns:
        raise EdadmError(
            f"method '{settings.method}' learns nothing that could be timed; name another --reconstruction"
        )
    given = Given(unet, calibration_set, ranges)
    result = compare(
        lambda changed, unit_store: open_task(preset, widths, changed, given, where, unit_store),
        settings,
        plain_iterations,
    )
    say(
        f"{result['engine']['ms_per_step']:.3f} ms per step; plain eager PyTorch takes {result['ratio']:.1f} "
        "times as long"
    )
    writing_json(output, result)


@timing.command("kernels")
def benchmark_kernels(
    model: ModelOption,
    output: OutputOption,
    bits: BitsOption = "official_w8a8",
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    tiles: Annotated[
        Path | None,
        typer.Option(callback=file_place, help="search for the fastest tiles, and write them here"),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Time every integer layer of a network beside cuDNN's and cuBLAS's bf16, on random numbers.

    Needs a GPU.
    """
    from edadm.artifacts import writing_json
    from edadm.benchmark.integer import random_integer_unet
    from edadm.benchmark.kernels import measure, problems_of
    from edadm.networks.inputs import InputSpec

    preset, where = preset_named("models", model, config), first_gpu()
    inputs = InputSpec.of(preset).random(batch_size, where)
    problems = problems_of(random_integer_unet(preset, preset_named("bits", bits, config), where), inputs)

    def keep(rows: list[dict[str, Any]]) -> None:
        if tiles is not None:
            writing_json(tiles, {row["key"]: row["tiles"] for row in rows if "tiles" in row})
        writing_json(output, {"model": model, "batch_size": batch_size, "rows": rows})

    measure(problems, search=tiles is not None, on_rows=keep)


@timing.command("integer")
def benchmark_integer(
    model: ModelOption,
    output: OutputOption,
    bits: Annotated[list[str], typer.Option("--bits", help="a bits preset; several are measured in one run")],
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    mode: Annotated[
        str, typer.Option(help="of torch.compile: default or max-autotune-no-cudagraphs")
    ] = "default",
    beside: Annotated[
        list[str] | None,
        typer.Option(help="a network to measure beside integers; all that are known by default"),
    ] = None,
    fuse: Annotated[
        bool | None,
        typer.Option(
            help="only networks with, or without, what follows products at their ends; both if unsaid"
        ),
    ] = None,
    tiles: Annotated[
        Path | None,
        typer.Option(help="of `edadm benchmark kernels --tiles`, before those that come with edadm"),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Time a network with random weights in integers, in bf16, TF32, fp32 and by torchao, in one run.

    Needs a GPU.
    """
    from edadm.artifacts import writing_json
    from edadm.benchmark.integer import BESIDE, check_choices, compare_with_integers
    from edadm.kernels.int8.tiles import adopt
    from edadm.networks.inputs import InputSpec
    from edadm.networks.random_weights import random_network

    check_choices(mode, beside or BESIDE)
    if tiles is not None:
        adopt(tiles)
    preset, where = preset_named("models", model, config), first_gpu()
    widths = {name: preset_named("bits", name, config) for name in bits}
    inputs = InputSpec.of(preset).random(batch_size, where)
    conditions = {"model": model, "batch": batch_size, "mode": mode}
    unet, fused = random_network(preset, where), (False, True) if fuse is None else (fuse,)

    def keep(rows: dict[str, Any]) -> None:
        writing_json(output, conditions | {"networks": rows})

    result = compare_with_integers(unet, widths, inputs, mode, beside or BESIDE, fused, keep)
    for name, row in result["networks"].items():
        say(
            f"{name}: {row['ms']:.2f} ms, {row['samples_per_second']:.0f} samples per second"
            if "ms" in row
            else f"{name}: {row['failed']}"
        )
    writing_json(output, {"model": model} | result)


@timing.command("families")
def benchmark_families(
    output: OutputOption,
    families: Annotated[
        list[str] | None, typer.Option("--family", help="a published model preset; all five by default")
    ] = None,
    rows: Annotated[int, typer.Option(min=2, help="trajectories and calibration samples")] = 32,
    steps: Annotated[int, typer.Option(min=2, help="of the sampler")] = 5,
    units: Annotated[int, typer.Option(min=1, help="units that are learned")] = 5,
    iterations: Annotated[int, typer.Option(min=1, help="learning steps per unit")] = 50,
    images: Annotated[int, typer.Option(min=1, help="images per network and precision")] = 4,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Run a small part of each published run at full size with random weights.

    Time and memory per stage stand beside the plan's.
    """
    from edadm.artifacts import writing_json
    from edadm.pilot.full_size import all_families, as_markdown
    from edadm.pilot.scaled import FAMILIES, Scale

    if unknown := [name for name in families or () if name not in FAMILIES]:
        raise EdadmError(f"there is no published model '{unknown[0]}'; known are {', '.join(FAMILIES)}")
    chosen = {name: (preset_named("models", name, config), FAMILIES[name]) for name in families or FAMILIES}
    scale = Scale(rows, steps, units, iterations, images)
    result = all_families(
        chosen, scale, device_named(device, threads), lambda so_far: writing_json(output, so_far)
    )
    typer.echo(as_markdown(result))


@timing.command("dry-run")
def benchmark_dry_run(
    output: OutputOption,
    runs: Annotated[
        list[Path] | None, typer.Argument(help="files with runs; the five published ones by default")
    ] = None,
    images: Annotated[int, typer.Option(min=2, help="images of each variant")] = 50_000,
    shards: Annotated[int, typer.Option(min=1, help="jobs that share them")] = 500,
    times: Annotated[int, typer.Option(min=1, help="dry runs; the first also looks at the code")] = 2,
) -> None:
    """Time a dry run of the published runs, beside one of as many bare rules.

    The models are empty files.
    """
    from edadm.artifacts import writing_json
    from edadm.benchmark.dry_run import dry_runs, in_shards

    files = runs or sorted((PROJECT / "workflow" / "published").glob("*.yaml"))
    options = ["--snakefile", str(PROJECT / "Snakefile")]
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        for row in dry_runs(options, in_shards(files, images, shards), Path(folder), times):
            measured.append(row)
            say(
                f"{row['name']}: {row['jobs']} jobs in {row['seconds']:.1f} s "
                f"({row['processor_seconds']:.1f} s of a processor)"
            )
    writing_json(output, {"images": images, "shards": shards, "dry_runs": measured})
