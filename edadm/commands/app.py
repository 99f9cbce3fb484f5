"""The command line that subcommands join."""

from __future__ import annotations

import typer

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
