"""The command line: one subcommand per rule of the workflow, and some around it."""

from __future__ import annotations

import errno
import sys

from edadm.commands import calibration, files, images, quantization, showing, timing, workflow
from edadm.commands.app import app
from edadm.config.inputs.arguments import expanded
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


_NO_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


def main() -> None:
    """The entry point of `edadm`."""
    try:
        sys.argv[1:] = expanded(sys.argv[1:])
        app()
    except EdadmError as error:
        say(f"edadm: {error}")
        sys.exit(2)
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        say(
            f"edadm: {error.filename or 'a file'}: {(error.strerror or '').lower()}; make room or give the "
            "right to write there"
        )
        sys.exit(2)
