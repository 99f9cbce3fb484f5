"""Seconds, work on the device included."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Adds up the seconds spent inside its contexts, work on the device included."""

    def __init__(self, device: torch.device):
        self.device, self.seconds = device, 0.0

    def now(self) -> float:
        """Seconds, once the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        begin = self.now()
        yield
        self.seconds += self.now() - begin
