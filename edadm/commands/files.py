"""What is around a run: its plan, its report, downloads, exports, the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edadm.artifacts.failures import file_place
from edadm.commands.app import app
from edadm.commands.options import DeviceOption, FolderOption, OutputOption, ThreadsOption, device_named


@app.command()
def export(
    weights: Annotated[
        Path, typer.Argument(exists=True, help="a quantized checkpoint, or a folder with one")
    ],
    output: Annotated[Path, typer.Option(help="the folder or file to write")],
    target: Annotated[
        str,
        typer.Option(
            "--format",
            help="diffusers: a folder for from_pretrained; comfy: a file for ComfyUI, linear layers in int8; "
            "onnx: a file of integers (docs/integer_cpu.md: other forms of it)",
        ),
    ] = "diffusers",
    runtime: Annotated[
        str | None,
        typer.Option("--target", help="of --format onnx: onnxruntime, openvino or tensorrt"),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="of what is in floating point: fp16 (if not given), bf16 or fp32")
    ] = None,
) -> None:
    """Write a quantized checkpoint for other programs.

    With floating-point weights and activations, with int8 weights of linear layers, or as an ONNX graph of
    integers.
    """
    from edadm.config.exports import ONNX, refuse_export, refuse_without_onnx

    refuse_export(output, target, precision, runtime)  # before torch is imported
    if target in ONNX:
        refuse_without_onnx()

    from edadm.deploy.export.formats import export

    export(weights, output, target, precision, runtime)


@app.command()
def download(
    name: Annotated[str | None, typer.Argument(help="which file; without it, all are listed")] = None,
    output: Annotated[
        Path | None,
        typer.Option(callback=file_place, help="where to put it; else where presets look for it"),
    ] = None,
) -> None:
    """Fetch public weights or reference data; goes on where it broke off.

    No other command downloads anything.
    """
    from edadm.config.files.downloads import DOWNLOADS
    from edadm.config.files.fetch import fetch, find_download

    if name is None:
        for key, entry in DOWNLOADS.items():
            typer.echo(
                f"{key}: {entry.what}, to {entry.path}; "
                f"{entry.checksum if entry.checksum != 'unknown' else 'checksum unknown'}"
            )
        return
    entry = find_download(name)
    fetch(entry, output or Path(entry.path))


@app.command()
def plan(
    config: Annotated[
        Path, typer.Option("--config", help="a configuration file; its runs are planned")
    ] = Path("config.yaml"),
    model: Annotated[
        list[str] | None, typer.Option("--model", help="only the run of this model; may be repeated")
    ] = None,
    probe: Annotated[bool, typer.Option(help="estimate times from a short probe of this machine")] = True,
    gpus: Annotated[int, typer.Option(min=1, help="that the runs may have, as fast as the one probed")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="bytes and seconds as JSON")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Say what the runs of a configuration will cost, before anything runs.

    That is disk, memory, network evaluations, time per stage, and hours and GPU-hours of all on several GPUs.
    """
    import json
    from functools import partial

    from edadm.config.load import load_runs

    settings = load_runs(config)  # before torch is imported, so that a mistake is told at once

    from edadm.metrics.extractors.rate import feature_network
    from edadm.planning.plan import chosen_runs, plan_run
    from edadm.planning.schedule import in_words, on_gpus
    from edadm.planning.show import as_table

    where = device_named(device, threads) if probe else None
    networks = partial(feature_network, device=where or "cpu")
    plans = [plan_run(run, settings, where, networks) for run in chosen_runs(settings, model)]
    if as_json:
        alone = [plan | {"on_gpus": on_gpus([plan], gpus) if probe else None} for plan in plans]
        typer.echo(json.dumps(alone, indent=1))
        return
    together = [in_words(on_gpus(plans, gpus))] if probe else []
    typer.echo("\n\n".join([*map(as_table, plans), *together]))


@app.command()
def report(
    results: Annotated[Path, typer.Option(help="the results folder")],
    output: OutputOption,
    config: Annotated[
        str, typer.Option(help="a configuration file, or a configuration as JSON")
    ] = "config.yaml",
) -> None:
    """Write the self-contained HTML page."""
    import json

    from edadm.config.load import described_runs, load_runs
    from edadm.stages import report as page

    settings = load_runs(json.loads(config) if config.lstrip().startswith("{") else Path(config))
    page.run(results, described_runs(settings), output)


@app.command()
def card(
    variant: Annotated[
        str, typer.Argument(help="CALIBRATION/BITS/RECONSTRUCTION, with MODEL/ before it or not")
    ],
    output: FolderOption,
    licence: Annotated[
        str, typer.Option("--license", help="of the base model's weights, such as apache-2.0")
    ],
    base_model: Annotated[str, typer.Option(help="its name on the hub, such as owner/name")] = "",
    config: Annotated[Path, typer.Option(help="the configuration file of the run")] = Path("config.yaml"),
) -> None:
    """Write a folder for a hub of models: a finished variant as diffusers reads it, with images and a card.

    Nothing is sent; `hf upload OWNER/NAME FOLDER` does that.
    """
    from edadm.config.load import described_runs, load_runs
    from edadm.report.card import Origin, write_card

    settings = load_runs(config)
    write_card(Path(settings.results), described_runs(settings), variant, Origin(licence, base_model), output)


@app.command()
def schema(output: OutputOption) -> None:
    """Write the JSON schema of config.yaml, for editors."""
    from edadm.artifacts import writing_json
    from edadm.config.schema import json_schema

    writing_json(output, json_schema())
