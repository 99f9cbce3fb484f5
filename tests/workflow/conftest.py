"""The undisturbed run that others are compared with; it happens once, beside the disturbed one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .toy import Run, Toy, copy_package


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, so that work on it does not disturb the tests."""
    return copy_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def beginning(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Iterator[tuple[Toy, Run]]:
    """The run of `reference`, started and not waited for."""
    toy = Toy(tmp_path_factory.mktemp("reference"), package)
    with toy.started() as run:
        yield toy, run


@pytest.fixture(scope="session")
def reference(beginning: tuple[Toy, Run]) -> Toy:
    """A toy project after one undisturbed run; leave it as it is."""
    toy, run = beginning
    assert run.wait() == 0, run.text()
    return toy
