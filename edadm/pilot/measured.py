"""What stands in for text encoders while stages are measured, and the measurement of a stage."""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from edadm.benchmark.clock import Clock
from edadm.networks.inputs import MASK, WHOLE
from edadm.sampling.noise import keyed_generator

Images = UInt8[Tensor, "n 3 h w"]


class RandomCondition:
    """Random numbers for image i, and others for none.

    They stand in for text encoders, which are no part of what is measured.

    Args:
        shapes: of a row of each input that the network is told, by name.
        device: where rows are wanted.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], device: torch.device, kept: Collection[str] = ()
    ):
        self._shapes, self._device, self._kept = shapes, device, kept

    def _row(self, name: str, image: int | str) -> Shaped[Tensor, " *s"]:
        key = (image,) if name == "context" else (image, name)
        if name == MASK:
            return torch.ones(self._shapes[name], device=self._device)
        numbers = torch.randn(self._shapes[name], generator=keyed_generator("random condition", *key))
        return (numbers.mul(1000).abs().long() if name in WHOLE else numbers).to(self._device)

    def rows(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """What is said of each image."""
        return {name: torch.stack([self._row(name, index) for index in indices]) for name in self._shapes}

    def unconditional(self) -> dict[str, Tensor]:
        """What is said where nothing is."""
        return {name: self._row(name, "none")[None] for name in self._shapes if name not in self._kept}


@dataclass
class Measured:
    """Time and peak memory of stages, one after the other.

    Attributes:
        device: where.
        stages: by name: `seconds`, and `peak_bytes` of device memory, None on a CPU.
    """

    device: torch.device
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures what happens inside; weights made inside count."""
        clock, cuda = Clock(self.device), self.device.type == "cuda"
        if cuda:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        with clock():
            yield
        peak = torch.cuda.max_memory_allocated(self.device) if cuda else None
        self.stages[name] = {"seconds": clock.seconds, "peak_bytes": peak}


def psnr_of_all_pixels(images: Images, others: Images) -> float | None:
    """The PSNR of all pixels of all images together, in dB; None where none differs."""
    error = (images.double() - others.double()).square().mean()
    return None if error == 0 else (10 * (255**2 / error).log10()).item()
