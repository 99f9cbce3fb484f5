"""The search for tiles without a GPU: what is kept of tiles and problems that fail; the timing itself is in tests/test_gpu.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edadm.benchmark import kernels as module
from edadm.benchmark.kernels import measure
from edadm.kernels.int8.tiles import Problem, Tiles

GOOD, BETTER, TOO_LARGE = (
    Tiles(64, 64, 64, 4, 4),
    Tiles(64, 128, 64, 4, 3, kind="descriptor"),
    Tiles(256, 256, 128, 8, 4),
)
WRONG = Tiles(64, 64, 64, 4, 3, kind="pipelined")
MILLISECONDS = {GOOD: 0.4, BETTER: 0.2, WRONG: 0.1, "bf16": 0.3}
FINE, ILL, TIGHT = Problem(512, 64, 64, 3, 1), Problem(512, 64, 32, 3, 1), Problem(512, 32, 64, 3, 1)


@pytest.fixture
def clockless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times by the table above; calls return what they would compute with."""

    def call(problem: Problem, operands: tuple[Any, ...], chosen: Tiles) -> Tiles:
        if chosen == TOO_LARGE:
            raise RuntimeError("out of resources: shared memory\nRequired: 1")
        return chosen

    def operands(problem: Problem, shape: tuple[int, ...]) -> tuple[str, str]:
        if problem == ILL:
            raise MemoryError("none left")
        return ("x", "weight")

    tried = {FINE: [GOOD, TOO_LARGE, BETTER, WRONG], ILL: [GOOD], TIGHT: [TOO_LARGE]}
    monkeypatch.setattr(module, "candidates", tried.__getitem__)
    monkeypatch.setattr(module, "compile_ahead", lambda work, processes: None)
    monkeypatch.setattr(module, "_operands", operands)
    monkeypatch.setattr(module, "_call", call)
    monkeypatch.setattr(module, "_agree", lambda found, expected: found != WRONG)
    monkeypatch.setattr(module, "_bf16", lambda problem, x, weight: lambda: "bf16")
    monkeypatch.setattr(module, "milliseconds", lambda function: MILLISECONDS[function()])


@pytest.mark.usefixtures("clockless")
def test_the_fastest_tiles_are_found_and_failures_are_told() -> None:
    seen: list[int] = []
    count: Callable[[list[dict[str, Any]]], None] = lambda rows: seen.append(len(rows))  # noqa: E731
    fine, ill, tight = measure(dict.fromkeys((FINE, ILL, TIGHT), (1, 1, 512, 64)), search=True, on_rows=count)
    assert seen == [1, 2, 3]
    assert Tiles(*fine["tiles"]) == BETTER
    assert (fine["int8_ms"], fine["bf16_ms"], fine["ratio"]) == (0.2, 0.3, pytest.approx(1.5))
    assert fine["tried"] == {"64x64x64x4x4x1xwindow": 0.4, "64x128x64x4x3x1xdescriptor": 0.2}
    assert fine["refused"] == {
        "256x256x128x8x4x1xwindow": "RuntimeError: out of resources: shared memory",
        "64x64x64x4x3x1xpipelined": "EdadmError: its sums are not those of the kernel that all problems have",
    }
    assert ill["failed"] == "MemoryError: none left"
    assert tight["failed"] == "no tiles were accepted"
    assert "tiles" not in tight
