"""The tiny U-Net, quantized, and its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from edadm.config.schema import Bits, Model
from edadm.deploy.checkpoint import save_quantized
from edadm.nn.surgery import quantized_layers

PROVENANCE = {"reconstruction": {"method": "none"}}


@pytest.fixture
def folded(gridded: Callable[[], nn.Module]) -> nn.Module:
    """The tiny U-Net, rounded to nearest, with one code off so that it is nobody's default."""
    unet = gridded()
    for layer in quantized_layers(unet).values():
        codes = layer.nearest_codes()
        codes.flatten()[0] = 15 - codes.flatten()[0] if layer.weight_quantizer.bits == 4 else 3
        layer.set_codes(codes)
    return unet


@pytest.fixture
def saved(folded: nn.Module, model: Model, bits: Bits, tmp_path: Path) -> Path:
    save_quantized(folded, tmp_path / "quantized.safetensors", model.architecture, bits, PROVENANCE)
    return tmp_path / "quantized.safetensors"
