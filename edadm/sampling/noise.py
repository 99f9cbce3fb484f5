"""Streams of random numbers, one per image.

Results do not depend on batch, shard or number of machines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def keyed_generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of random numbers that is a function of a key alone, e.g. `(seed, "image", 17)`.

    And of the kind of device.
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class ImageNoise:
    """Gaussian noise for the images `indices`, drawn image by image.

    First `x_T`, then one draw per stochastic step.
    """

    def __init__(
        self, seed: int, indices: Sequence[int], shape: tuple[int, ...], device: torch.device | str = "cpu"
    ):
        self._generators = [keyed_generator(seed, "image", index) for index in indices]
        self._shape = shape
        self._device = device

    def draw(self) -> Float[Tensor, "n c h w"]:
        """The next standard normal sample of every image."""
        rows = [torch.randn(self._shape, generator=generator) for generator in self._generators]
        return torch.stack(rows).to(self._device)
