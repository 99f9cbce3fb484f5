"""The clock may be set back: then what was made before it is dated ahead of now.

Snakemake removes what a job has made, as of a failed job, if one of its inputs is newer than the job's end.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from edadm.console import duration, say

_MARK = ".snakemake_timestamp"  # the date of a folder, for Snakemake


def date_now(path: Path) -> None:
    """Dates an input now if it is dated ahead, so that what is made from it is newer."""
    dated = path / _MARK if (path / _MARK).is_file() else path
    with suppress(OSError):  # gone, or of another user
        now = time.time()
        ahead = dated.stat().st_mtime - now
        if ahead > 0:
            os.utime(dated, (now, now))  # by this machine's clock: a file server's own may be the one ahead
            say(f"{path} was dated {duration(ahead)} ahead, so the clock was set back; it is dated now")
