"""CMMD beside its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edadm.metrics.scores import cmmd as module
from edadm.metrics.scores.cmmd import cmmd


def test_it_is_the_mean_kernel_over_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", 4)
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.nn.functional.normalize(torch.randn(n, 5, generator=generator)) for n in (9, 7))

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        pairs = [np.exp(-((a - b) ** 2).sum() / 200) for a in x.double().numpy() for b in y.double().numpy()]
        return float(np.mean(pairs))

    expected = 1000 * (kernel(one, one) + kernel(other, other) - 2 * kernel(one, other))
    assert cmmd(one, other) == pytest.approx(expected, rel=1e-6)
    assert cmmd(one, one) == pytest.approx(0, abs=1e-9)
