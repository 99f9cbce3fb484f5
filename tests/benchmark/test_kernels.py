"""The search for tiles without a GPU: what is kept of tiles and problems that fail; the timing itself is in tests/test_gpu.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from edadm.benchmark import kernels as module
from edadm.benchmark.kernels import measure
from edadm.kernels.int8.products.launch import Launch
from edadm.kernels.int8.products.operands import Operands
from edadm.kernels.int8.tiles import Problem, Tiles

GOOD, BETTER, TOO_LARGE = (
    Tiles(64, 64, 64, 4, 4),
    Tiles(64, 128, 64, 4, 3, kind="descriptor"),
    Tiles(256, 256, 128, 8, 4),
)
WRONG = Tiles(64, 64, 64, 4, 3, kind="pipelined")
KINDS = ("window", "matrix", "descriptor", "pipelined")
MILLISECONDS = {GOOD: 0.4, BETTER: 0.2, WRONG: 0.1, "bf16": 0.3}
FINE, ILL, TIGHT = Problem(512, 64, 64, 3, 1), Problem(512, 64, 32, 3, 1), Problem(512, 32, 64, 3, 1)

X, WEIGHT = torch.zeros(1, 16, 32, 64, dtype=torch.int8), torch.zeros(64, 3, 3, 64, dtype=torch.int8)
SOME = Operands.of(X, WEIGHT, torch.ones(64), torch.ones(64), None, 1, 1, 0, torch.bfloat16)


@pytest.fixture
def clockless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times by the table above; calls return what they would compute with."""

    def run(operands: Operands, launch: Launch) -> Tiles:
        if launch.tiles == TOO_LARGE:
            raise RuntimeError("out of resources: shared memory\nRequired: 1")
        return launch.tiles

    def operands(problem: Problem, shape: tuple[int, ...]) -> Operands:
        if problem == ILL:
            raise MemoryError("none left")
        return SOME

    tried = {FINE: [GOOD, TOO_LARGE, BETTER, WRONG], ILL: [GOOD], TIGHT: [TOO_LARGE]}
    monkeypatch.setattr(module, "candidates", tried.__getitem__)
    monkeypatch.setattr(module, "compile_ahead", lambda work, processes: None)
    monkeypatch.setattr(module, "_operands", operands)
    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "_launch", lambda operands, wanted: Launch("conv_tma", wanted, (1,)))
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
    assert fine["kernel"] == "conv_tma"
    assert (fine["int8_ms"], fine["bf16_ms"], fine["ratio"]) == (0.2, 0.3, pytest.approx(1.5))
    assert fine["tried"] == {"64x64x64x4x4x1xwindow": 0.4, "64x128x64x4x3x1xdescriptor": 0.2}
    assert fine["refused"] == {
        "256x256x128x8x4x1xwindow": "RuntimeError: out of resources: shared memory",
        "64x64x64x4x3x1xpipelined": "EdadmError: its sums are not those of the kernel that all problems have",
    }
    assert ill["failed"] == "MemoryError: none left"
    assert tight["failed"] == "no tiles were accepted"
    assert "tiles" not in tight


def test_the_kernel_that_is_told_is_the_one_that_runs_whatever_the_tiles_are_called() -> None:
    small = Tiles(64, 32, 32, 4, 3)
    kernels = {kind: module._launch(SOME, small._replace(kind=kind)).kernel for kind in KINDS}
    assert kernels == {"window": "implicit_gemm", "matrix": "implicit_gemm"} | {
        "descriptor": "conv_tma",
        "pipelined": "implicit_gemm",  # nothing interprets Gluon on a CPU
    }
