"""The command line: one subcommand per rule of the workflow, and some around it."""

from __future__ import annotations

import sys
from importlib import import_module

import typer

from edadm.artifacts.failures import told
from edadm.commands.app import MODULES, Interrupted, app
from edadm.config.inputs.arguments import expanded
from edadm.console import say
from edadm.deferred import defer
from edadm.devices.freed import use_huge_pages
from edadm.errors import EdadmError

INTERRUPTED = 130  # the exit status after SIGINT, by the convention of shells


def app_with(named: str | None = None) -> typer.Typer:
    """The command line with all subcommands, or, where one of them is named, at least with that one.

    Importing a module is what registers its subcommands.
    """
    for module in [MODULES[named]] if named in MODULES else dict.fromkeys(MODULES.values()):
        import_module(f"edadm.commands.{module}")
    return app


def main() -> None:
    """The entry point of `edadm`."""
    defer()
    use_huge_pages()
    named = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), None)
    try:
        sys.argv[1:] = expanded(sys.argv[1:])
        app_with(named)()
    except Interrupted:
        say("edadm: interrupted; start the same command again, and it goes on from its finished pieces")
        sys.exit(INTERRUPTED)
    except EdadmError as error:
        say(f"edadm: {error}")
        sys.exit(2)
    except OSError as error:
        if (sentence := told(error)) is None:
            raise
        say(f"edadm: {sentence}")
        sys.exit(2)
