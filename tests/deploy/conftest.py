"""The tiny U-Net of each family, quantized, and its file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import edadm
from edadm.config.schema import Bits, Model
from edadm.deploy.backends.cuda_int8 import lower_for_cuda
from edadm.deploy.checkpoint import read_metadata, save_quantized
from edadm.deploy.diffusers import QuantizedUNet, as_diffusers_model
from edadm.deploy.grids import quantized_copy
from edadm.networks.build import build_network
from edadm.networks.inputs import Rows
from edadm.networks.unet.base import UNet
from edadm.nn.insert import quantized_layers
from edadm.passes.ranges import set_ranges
from edadm.quant import ranges

from ..networks.families import calibrated, random_network, tiny

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


Family = tuple[UNet, UNet, Rows]
SMOOTH = Bits(weights=4, activations=8, range_batch_size=4, range_bins=64, smoothing=0.5)
SMOOTHED = "sd14_coco"  # with norms before linear layers, a context, GEGLU, and split shortcuts


@pytest.fixture(scope="session")
def smoothed() -> Family:
    """A float network with outlier channels, the same smoothed and quantized, and its rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "THRESHOLDS", 10)
        return calibrated(SMOOTHED, SMOOTH, outliers=8)


@pytest.fixture
def quantized_family(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], Family]:
    """Makes the float and the quantized network of a family, and rows for them; writes the checkpoint."""

    @torch.no_grad()
    def make(family: str, path: Path) -> Family:
        monkeypatch.setattr(ranges, "THRESHOLDS", 10)
        architecture, bits = (
            tiny(family).architecture,
            Bits(weights=4, activations=8, range_bins=64, range_batch_size=4),
        )
        unet = random_network(build_network(architecture), 1).to(memory_format=torch.channels_last)
        quantized, generator = quantized_copy(unet, bits), torch.Generator().manual_seed(2)
        latents = torch.randn(4, architecture.in_channels, 8, 8, generator=generator)
        rows = {"latents": latents, "timesteps": torch.tensor([9, 400, 700, 990])}
        if architecture.context_channels:
            rows["context"] = torch.randn(4, 5, architecture.context_channels, generator=generator)
        set_ranges(quantized, Rows(rows), bits)
        save_quantized(quantized, path, architecture, bits, {}, latents.shape[2:])
        return unet, quantized, Rows(rows)

    return make


Made = tuple[UNet, Path, dict[str, Tensor]]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The tiny Stable Diffusion U-Net in full precision, its quantized file, rows for both."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("attention") / "sd.safetensors"
        unet, _, rows = family_of(patch)("sd14_coco", path)
        return unet, path, dict(rows.tensors)


def family_of(patch: pytest.MonkeyPatch) -> Callable[[str, Path], Family]:
    """What the fixture `quantized_family` gives, for the whole session."""
    return quantized_family.__wrapped__(patch)


def on_gpu(path: Path, fuse: bool = True) -> QuantizedUNet:
    """The network for GPUs, by its plain meaning."""
    return as_diffusers_model(
        lower_for_cuda(edadm.load(path), torch.float32, fuse=fuse), read_metadata(path), "integer"
    )


BACKENDS: dict[str, Callable[[Path], QuantizedUNet]] = {
    "simulated": edadm.load,
    "copied": lambda path: copy.deepcopy(edadm.load(path)),
    "cpu": lambda path: edadm.load(path, backend="integer"),
    "gpu": on_gpu,
    "gpu, not fused": lambda path: on_gpu(path, fuse=False),
}


@pytest.fixture(scope="session")
def networks(made: Made) -> dict[str, QuantizedUNet]:
    """One for each back-end, to be left as they are."""
    return {backend: load(made[1]) for backend, load in BACKENDS.items()}


def output(network: nn.Module, rows: dict[str, Tensor], **others: Any) -> Tensor:
    with torch.no_grad():
        return network(rows["latents"], rows["timesteps"], rows["context"], **others).sample
