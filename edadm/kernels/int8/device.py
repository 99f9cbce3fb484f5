"""The facts of a device on which the choice of a kernel depends: numbers, so that choosing needs no GPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

HOPPER, AMPERE = (9, 0), (8, 0)
SHARED_BYTES = 227 * 1024  # of a processor of an H100
INTERPRETED_PROCESSORS = 3


@dataclass(frozen=True)
class Device:
    """A GPU, or Triton's interpreter on a CPU, which does as if it were a Hopper GPU but knows no Gluon.

    Attributes:
        capability: CUDA compute capability.
        processors: streaming multiprocessors.
        shared_bytes: shared memory that a program may have.
        interpreted: whether Triton's interpreter takes the place of a GPU.
    """

    capability: tuple[int, int] = HOPPER
    processors: int = INTERPRETED_PROCESSORS
    shared_bytes: int = SHARED_BYTES
    interpreted: bool = False

    @property
    def has_tma(self) -> bool:
        """Whether tensor descriptors are read by a tensor memory accelerator."""
        return self.capability >= HOPPER

    @property
    def has_wgmma(self) -> bool:
        """Whether warp groups multiply matrices asynchronously, in Gluon kernels.

        Hopper alone has these instructions (PTX ISA 9.0: `wgmma.mma_async` needs sm_90a); later GPUs have
        others.
        """
        return self.capability[0] == HOPPER[0] and not self.interpreted

    @property
    def has_async_copy(self) -> bool:
        """Whether Gluon kernels copy from global to shared memory while they compute."""
        return self.capability >= AMPERE and not self.interpreted

    @staticmethod
    @cache
    def of(device: torch.device) -> Device:
        """The facts of a device on which tensors are."""
        if device.type != "cuda":
            return Device(interpreted=True)
        known = torch.cuda.get_device_properties(device)
        # torch's types do not say so, and not all platforms do
        shared = getattr(known, "shared_memory_per_block_optin", SHARED_BYTES)
        capability = torch.cuda.get_device_capability(device)
        return Device(capability, known.multi_processor_count, shared)
