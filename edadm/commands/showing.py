"""What any file is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edadm.commands.app import app
from edadm.commands.options import ConfigOption

PathsArgument = Annotated[list[Path], typer.Argument(exists=True, metavar="FILE_OR_FOLDER...", help="files or folders of any kind")]


@app.command()
def show(paths: PathsArgument) -> None:
    """Say what files are: ours (model, bits, layers, made from what) or foreign (family, layout, what edadm can do)."""
    from edadm.models.told import lines_on

    for path in paths:
        typer.echo("\n".join(lines_on(path)))


@app.command()
def verify(
    results: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="a results folder")],
    config: ConfigOption = None,
) -> None:
    """Name what is damaged, was made from other inputs or settings than lie there now, or does not belong there."""
    from edadm.config.load import load_config
    from edadm.report.verify import Results

    there = Results(results, None if config is None else load_config(config))
    count = 0
    for finding in there.findings():
        count += 1
        typer.echo(f"{finding.what}: {finding.sentence}")
    typer.echo(f"{there.seen} artifacts, " + (f"{count} to look at" if count else "all as they were made"))
    if count:
        raise typer.Exit(1)
