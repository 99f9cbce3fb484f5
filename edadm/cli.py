"""The command line: one subcommand per rule of the workflow."""

from __future__ import annotations

import typer

from edadm.training.commands import app as train

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.add_typer(train, name="train")


def main() -> None:
    """The entry point of `edadm`."""
    app()
