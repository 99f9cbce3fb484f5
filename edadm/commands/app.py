"""The command line that subcommands join."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edadm.errors import EdadmError
from edadm.training.commands import app as train
from edadm.version import __version__

# Subcommands by the module that registers them: what comes before a run, the stages as the workflow has
# them, what is done with the results.
MODULES = {
    "quantize": "workflow",
    "run": "workflow",
    "plan": "files",
    "describe": "showing",
    "show": "showing",
}
MODULES |= {"download": "files", "schema": "files"}
MODULES |= dict.fromkeys(("convert-checkpoint", "collect-trajectories", "select-calibration"), "calibration")
MODULES |= dict.fromkeys(("set-ranges", "reconstruct-part", "reconstruct"), "quantization")
MODULES |= dict.fromkeys(("generate", "write-prompts", "reference-statistics"), "images")
MODULES |= dict.fromkeys(("extract-features", "evaluate"), "images")
MODULES |= {"report": "files", "verify": "showing", "adopt": "workflow"}
MODULES |= {"export": "files", "card": "files", "benchmark": "timing", "train": "app"}
ORDER = tuple(MODULES)


class Interrupted(Exception):  # noqa: N818 - it is no error
    """The person at the keyboard has had enough."""


class InOrder(TyperGroup):
    """Lists subcommands in `ORDER`, whatever the order in which their modules are imported."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the subcommands."""
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        """Runs a subcommand.

        Raises:
            Interrupted: by SIGINT, for which typer says "Aborted!", as for a file that ends too early.
            EdadmError: a file ends too early, and its reader did not say which.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted from None
        except EOFError as error:
            raise EdadmError(f"a file ends too early ({error}); `edadm verify RESULTS` says which") from None


app = typer.Typer(
    cls=InOrder,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Quantize diffusion models after training. Each stage of the workflow is a command; `snakemake` "
    "runs them all.",
)
app.add_typer(train, name="train")


def _tell_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"edadm {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def edadm(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="say which edadm this is"),
    ] = False,
) -> None:
    """Takes what stands before a subcommand."""


timing = typer.Typer(no_args_is_help=True, help="Times and bytes, as ratios within one run.")
app.add_typer(timing, name="benchmark")
