"""The workflow as a child: what its end and signals become."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from edadm.turnkey.run import run_in

WAITS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
open("ready", "w")
time.sleep(60)
"""


def test_the_status_of_the_child_is_returned(tmp_path: Path) -> None:
    assert run_in(tmp_path, [sys.executable, "-c", "raise SystemExit(3)"], {}) == 3


def test_a_termination_is_passed_on_and_is_no_failure_of_a_step(tmp_path: Path) -> None:
    def terminate() -> None:
        while not (tmp_path / "ready").exists():
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    before = signal.getsignal(signal.SIGTERM)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, [sys.executable, "-c", WAITS], {})
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
