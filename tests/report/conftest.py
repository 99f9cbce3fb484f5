"""A results folder for every test that wants one."""

from __future__ import annotations

from pathlib import Path

import pytest

from .fakes import Fake, make_results


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """A complete results folder that a test may spoil."""
    return make_results(tmp_path / "results")
