"""The command line: one subcommand per rule of the workflow, and some around it."""

from __future__ import annotations

import sys

from edadm.commands import calibration, files, images, quantization, timing, workflow
from edadm.commands.app import app
from edadm.console import say
from edadm.errors import EdadmError

# Importing them is what registers subcommands.
__all__ = ["app", "calibration", "files", "images", "main", "quantization", "timing", "workflow"]


def main() -> None:
    """The entry point of `edadm`."""
    try:
        app()
    except EdadmError as error:
        say(f"edadm: {error}")
        sys.exit(2)
