"""What any file is."""

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
    """Say what files are: ours (model, bits, layers, made from what) or foreign (family, layout, what edadm can do)."""
    from edadm.networks.described.told import lines_on

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
        f"of edadm 0.1.0, which did not say what they were made from, so that only damage was looked for: {silent}"
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
            f"would be made again without `edadm adopt {results}`, though it means the same: the work of {kept} other jobs"
        )
