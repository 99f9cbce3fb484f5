"""Seconds add up."""

from __future__ import annotations

import torch

from edadm.benchmark.clock import Clock


def test_a_clock_adds_up_its_contexts() -> None:
    clock, now = Clock(torch.device("cpu")), iter([1.0, 3.0, 10.0, 10.5])
    clock.now = lambda: next(now)  # type: ignore[method-assign]
    for _ in range(2):
        with clock():
            pass
    assert clock.seconds == 2.5
