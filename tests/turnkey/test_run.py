"""The workflow as a child: what its end becomes; a signal is in `tests/test_cli_quantize.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from edadm.turnkey.run import run_in


def test_the_status_of_the_child_is_returned(tmp_path: Path) -> None:
    assert run_in(tmp_path, [sys.executable, "-c", "raise SystemExit(3)"], {}) == 3
