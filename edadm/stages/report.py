"""Report: the self-contained page of a configuration's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def run(results: Path, runs: list[dict[str, Any]], output: Path) -> None:
    """Writes the page, and the tables beside it.

    Args:
        results: the results folder.
        runs: with all settings of their presets (`edadm.config.load.described_runs`).
        output: the page.
    """
    from edadm.report.page import write_page

    write_page(results, runs, output)
