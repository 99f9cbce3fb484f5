"""The command line: one subcommand per rule of the workflow, and some around it."""

from __future__ import annotations

import sys

from edadm.artifacts.failures import told
from edadm.commands import calibration, files, images, quantization, showing, timing, workflow
from edadm.commands.app import Interrupted, app
from edadm.console import say
from edadm.errors import EdadmError

__all__ = [
    "app",
    "calibration",
    "files",
    "images",
    "main",
    "quantization",
    "showing",
    "timing",
    "workflow",
]  # importing them is what registers subcommands


INTERRUPTED = 130  # the exit status after SIGINT, by the convention of shells


def main() -> None:
    """The entry point of `edadm`."""
    try:
        app()
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
