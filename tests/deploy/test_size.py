"""Files of the CIFAR-10 DDPM at full size (35.7 M parameters) are as large as the paper says, to 1 %."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

from edadm.config.load import load_config
from edadm.config.schema import Model
from edadm.deploy.checkpoint import load_quantized, save_quantized
from edadm.deploy.grids import quantized_copy
from edadm.networks.build import build_network
from edadm.nn.insert import quantized_layers


@pytest.fixture(scope="module")
def preset() -> Model:
    return load_config().models["ddim_cifar10"]


@pytest.fixture(scope="module")
def unet(preset: Model) -> UNet2DModel:
    """Its weights are numbers in order, and so different ones everywhere."""
    with torch.device("meta"):
        network = build_network(preset.architecture)
    network.to_empty(device="cpu").requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(
            torch.arange(parameter.numel(), dtype=torch.float32)
            .remainder_(1009)
            .sub_(504)
            .div_(504)
            .reshape(parameter.shape)
        )
    return network


@pytest.mark.parametrize(("width", "megabytes"), [(8, 35.9), (4, 18.1)])
def test_the_file_is_as_large_as_published(
    width: int, megabytes: float, preset: Model, unet: UNet2DModel, tmp_path: Path
) -> None:
    config = load_config()
    widths, settings = config.bits[f"cifar10_w{width}a8"], config.reconstructions[f"seed_cifar10_w{width}"]
    quantized = quantized_copy(unet, widths)
    for number, layer in enumerate(quantized_layers(quantized).values()):
        grid = layer.weight_quantizer
        below = (
            torch.arange(grid.scale.numel()) + number
        ) % 3 == 0  # as the search leaves them: in the middle, or one below
        grid.set_grid(
            grid.scale * 2.0**-number, 2 ** (grid.bits - 1) - below.float().reshape(grid.scale.shape)
        )
        layer.set_codes(layer.nearest_codes())
    path = tmp_path / "quantized.safetensors"
    save_quantized(
        quantized, path, preset.architecture, widths, {"reconstruction": settings.model_dump(mode="json")}
    )
    assert path.stat().st_size == pytest.approx(megabytes * 1e6, rel=0.01)
    loaded = load_quantized(path)
    for (name, expected), (_, found) in zip(
        quantized.named_parameters(), loaded.named_parameters(), strict=True
    ):
        assert torch.equal(found, expected), name
