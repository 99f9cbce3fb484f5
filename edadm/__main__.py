"""`python -m edadm`."""

import os

from edadm.warm import SETTING, SOCKET


def is_served() -> bool:
    """Whether a fork of the workflow's server has done the work."""
    if not os.environ.get(SOCKET) or os.environ.get(SETTING) == "0":
        return False
    from edadm.warm.client import served

    return served()


if not is_served():
    from edadm.cli import main

    main()
