"""Options that several subcommands have, and what they name: presets and devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edadm.artifacts.failures import file_place, folder_place
from edadm.config.backends import DEFAULT, FASTEST, INTEGER, backend_names
from edadm.errors import EdadmError

ModelOption = Annotated[str, typer.Option("--model", help="a model preset, by name or as JSON")]
CalibrationOption = Annotated[
    str, typer.Option("--calibration", help="a calibration preset, by name or as JSON")
]
BitsOption = Annotated[str, typer.Option("--bits", help="a bits preset, by name or as JSON")]
ReconstructionOption = Annotated[
    str, typer.Option("--reconstruction", help="a reconstruction preset, by name or as JSON")
]
EvaluationOption = Annotated[
    str, typer.Option("--evaluation", help="an evaluation preset, by name or as JSON")
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="a YAML file with presets of your own")]
UnetOption = Annotated[
    Path, typer.Option("--unet", exists=True, help="float weights, from convert-checkpoint")
]
SetOption = Annotated[Path, typer.Option("--calibration-set", exists=True, help="from select-calibration")]
RangesOption = Annotated[Path, typer.Option("--ranges", exists=True, help="from set-ranges")]
ProgressOption = Annotated[
    Path,
    typer.Option(
        "--progress",
        callback=folder_place,
        help="folder for finished pieces, from which a killed run goes on",
    ),
]
OutputOption = Annotated[Path, typer.Option("--output", callback=file_place, help="the file to write")]
FolderOption = Annotated[Path, typer.Option("--output", callback=folder_place, help="the folder to write")]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        help="cpu; cuda, a GPU that no other process has; cuda:1, that one; cuda/2, one that two may share; "
        "auto",
    ),
]
ThreadsOption = Annotated[
    int,
    typer.Option(
        "--threads", min=1, help="CPU threads; results are equal bit for bit only for equal numbers"
    ),
]


def _known_backend(name: str) -> str:
    if name in (names := (*backend_names(), FASTEST)):
        return name
    known = ", ".join(f"'{known}'" for known in names)
    raise typer.BadParameter(f"'{name}' is not one of {known}.")


BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        parser=_known_backend,
        metavar=f"[{'|'.join((*backend_names(), FASTEST))}]",
        help=f"of a quantized checkpoint: {DEFAULT}, floating point on its grids; {INTEGER}, integers, by "
        f"the backend of the device; {FASTEST}, the fastest exact one here, which is measured once; or a "
        "backend by its own name",
    ),
]
PartOption = Annotated[
    Path | None, typer.Option(exists=True, help="of models that have one, from convert-checkpoint --part")
]
DeviceMemoryOption = Annotated[
    float | None,
    typer.Option(
        min=0, envvar="EDADM_DEVICE_MEMORY", help="GiB that may be kept on the device; else what is free"
    ),
]
HostMemoryOption = Annotated[
    float | None,
    typer.Option(
        min=0, envvar="EDADM_HOST_MEMORY", help="GiB that may be kept in host memory; else what is free"
    ),
]
GraphsOption = Annotated[
    bool,
    typer.Option(
        "--graphs/--no-graphs",
        help="whether a GPU replays the network's calls; results are equal bit for bit",
    ),
]
LabelOption = Annotated[str, typer.Option("--label", help="what progress lines call this run")]


def preset_named(kind: str, text: str, config: Path | None) -> Any:
    """A preset by name, from the package or the user's file, or given as JSON."""
    from edadm.config.load import find_preset

    return find_preset(kind, text, config)


def device_named(name: str, threads: int) -> Any:
    """The torch device, after setting the number of CPU threads; a GPU is leased, and waited for, first."""
    from edadm.devices.freed import reuse_freed_memory
    from edadm.devices.lease import leased_device

    where = leased_device(name)

    import torch

    torch.set_num_threads(threads)
    if where.type == "cpu":
        reuse_freed_memory()
    return where


def first_gpu() -> Any:
    """A GPU that no other process has."""
    where = device_named("auto", 1)
    if where.type != "cuda":
        raise EdadmError(
            "this times kernels of a CUDA GPU, and there is none here; run it on a machine that has one"
        )
    return where
