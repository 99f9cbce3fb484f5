"""What files are: checkpoints as entries of a configuration, artifacts and whole results folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edadm.commands.app import app
from edadm.commands.options import ConfigOption
from edadm.errors import EdadmError

PathsArgument = Annotated[
    list[Path], typer.Argument(exists=True, metavar="FILE_OR_FOLDER...", help="files or folders of any kind")
]


@app.command()
def show(paths: PathsArgument) -> None:
    """Say what files are: ours (model, bits, layers, made from what) or foreign (family, layout)."""
    from edadm.networks.described.told import lines_on

    for path in paths:
        typer.echo("\n".join(lines_on(path)))


@app.command()
def verify(
    results: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="a results folder")],
    config: ConfigOption = None,
) -> None:
    """Name what is damaged, what was made from other inputs or settings, and what does not belong there."""
    from edadm.config.load import load_config
    from edadm.report.verify import Results

    there = Results(results, None if config is None else load_config(config))
    count = 0
    for finding in there.findings():
        count += 1
        typer.echo(f"{finding.what}: {finding.sentence}")
    whole = "none damaged" if there.silent else "all as they were made"
    rest = f"{count} to look at" if count else whole
    typer.echo(f"{there.seen} artifacts, {rest}")
    if there.silent:
        _on_the_earlier(results, config, len(there.silent))
    if count:
        raise typer.Exit(1)


def _on_the_earlier(results: Path, config: Path | None, silent: int) -> None:
    """What of the results of edadm 0.1.0 would be made again, where Snakemake's records tell that."""
    from edadm.adoption.checks import verdicts
    from edadm.commands.workflow import options_of

    typer.echo(
        "of edadm 0.1.0, which did not say what they were made from, so that only damage was looked for: "
        f"{silent}"
    )
    try:
        found = list(verdicts(*options_of(results, config)))
    except EdadmError as error:
        typer.echo(f"what would be made again is not known: {str(error).splitlines()[-1]}")
        return
    kept = 0
    for job, reason in found:
        kept += reason is None
        if reason:
            typer.echo(f"would be made again: {job.outputs[0]}: {reason}")
    if kept:
        typer.echo(
            f"would be made again without `edadm adopt {results}`, though it means the same: the work of "
            f"{kept} other jobs"
        )


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
    from edadm.config.load import load_config
    from edadm.networks.described.checkpoint import checkpoint_at, describe_checkpoint

    path, presets = checkpoint_at(checkpoint), load_config().models
    found = describe_checkpoint(path, config, presets)
    if name in presets:
        raise EdadmError(
            f"--name {name}: there is a preset of that name, whose settings would stay below the entry's; "
            "choose another"
        )
    chosen = name or entry_name(path)
    chosen = f"model_{chosen}" if chosen in presets else chosen
    load_config({"models": {chosen: found.settings}})
    typer.echo(found.as_yaml(chosen), nl=False)
