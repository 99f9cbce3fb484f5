"""What any file is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edadm.commands.app import app

PathsArgument = Annotated[list[Path], typer.Argument(exists=True, metavar="FILE_OR_FOLDER...", help="files or folders of any kind")]


@app.command()
def show(paths: PathsArgument) -> None:
    """Say what files are: ours (model, bits, layers, made from what) or foreign (family, layout, what edadm can do)."""
    from edadm.models.told import lines_on

    for path in paths:
        typer.echo("\n".join(lines_on(path)))
