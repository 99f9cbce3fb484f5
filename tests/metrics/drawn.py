"""Images to score."""

from __future__ import annotations

import torch
from torch import Tensor


def random_images(count: int, seed: int = 0) -> Tensor:
    """Coloured noise, so that images differ in more than pixels."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randint(60, 200, (count, 3, 1, 1), generator=generator)
    return (
        (base + torch.randint(-40, 40, (count, 3, 32, 32), generator=generator)).clamp(0, 255).to(torch.uint8)
    )
