"""From a checkpoint to the entry of a configuration that builds it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edadm.commands.app import app
from edadm.errors import EdadmError


@app.command()
def describe(
    checkpoint: Annotated[
        Path, typer.Argument(help="a diffusers folder, or a file of weights in any layout")
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="the training's own configuration: CompVis' project.yaml, or ermongroup/ddim's"
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="what to call the entry; else from the file's name")
    ] = None,
) -> None:
    """Print the `models:` entry of a checkpoint, ready to paste, and what the files leave open."""
    from edadm.config.described.entry import entry_name
    from edadm.config.described.folder import CONFIG, PIPELINE, config_of, describe_folder
    from edadm.config.described.foreign import describe_with
    from edadm.config.described.published import completed
    from edadm.config.load import load_config

    path = checkpoint.expanduser().absolute()
    if not path.exists():
        raise EdadmError(f"there is no file {path}; name a checkpoint, or a diffusers folder")
    path = path.parent if path.name in (CONFIG, PIPELINE) else path
    presets = load_config().models
    if config is not None:
        found = describe_with(config, path)
    elif path.is_dir() or config_of(path, "unet") is not None:
        found = describe_folder(path)
    else:
        from edadm.networks.described.tensors import describe_tensors

        found = describe_tensors(path, presets)
    if name in presets:
        raise EdadmError(
            f"--name {name}: there is a preset of that name, whose settings would stay below the entry's; choose another"
        )
    chosen = name or entry_name(path)
    chosen = f"model_{chosen}" if chosen in presets else chosen
    found = completed(found, presets)
    load_config({"models": {chosen: found.settings}})
    typer.echo(found.as_yaml(chosen), nl=False)
