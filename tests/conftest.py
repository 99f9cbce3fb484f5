"""A tiny U-Net with random weights, its calibration data, and quantized copies of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import hypothesis
import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.config.backends import BACKENDS, BackendEntry
from edadm.config.schema import Bits, Model, NoiseSchedule, Reconstruction, Sampler, Trajectories
from edadm.deploy.grids import grids, quantized_copy, set_grids
from edadm.networks.build import build_network
from edadm.networks.inputs import Rows
from edadm.networks.settings.architecture import Architecture
from edadm.passes.ranges import set_ranges
from edadm.sampling.noise import keyed_generator

torch.set_num_threads(1)
hypothesis.settings.register_profile("edadm", max_examples=30, deadline=None)
hypothesis.settings.register_profile("long", max_examples=500, deadline=None)  # .ci/long
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "edadm"))

Calibration = tuple[Tensor, Tensor]
TOGETHER = ("faults", "library", "report/gallery")  # whose files share a fixture that takes seconds


def pytest_configure() -> None:
    """Programs that tests start heed signals, also where this one was started in the background."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several workers one has all tests of a file, or of a folder of `TOGETHER`; the longest come first."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        file = item.nodeid.partition("::")[0]
        folder = file.rpartition("/")[0].removeprefix("tests/")
        runs = item.get_closest_marker("workflow") or item.get_closest_marker("slurm")
        group = "workflow" if runs else folder if folder in TOGETHER else file
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: not item.get_closest_marker("workflow"))


def as_rows(calibration: Calibration) -> Rows:
    """States and their t as inputs of a network."""
    return Rows(dict(zip(("latents", "timesteps"), calibration, strict=True)))


@torch.no_grad()
def reinitialise(module: nn.Module, seed: int) -> None:
    """Random matrices of unit gain, random biases, norm weights around one: nothing is zero, nothing is special."""
    generator = keyed_generator(seed, "weights")
    for name, parameter in module.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            values *= parameter[0].numel() ** -0.5
        elif name.endswith("weight"):
            values = 1 + 0.2 * values
        else:
            values *= 0.1
        parameter.copy_(values)


@pytest.fixture(scope="session")
def architecture() -> Architecture:
    return Architecture(
        image_size=16,
        channels=16,
        multipliers=(1, 2),
        blocks_per_level=1,
        attention_resolutions=(8,),
        norm_groups=8,
    )


@pytest.fixture(scope="session")
def model(architecture: Architecture) -> Model:
    """A preset around the tiny U-Net; its checkpoint does not exist."""
    return Model(
        checkpoint="tiny.safetensors",
        architecture=architecture,
        schedule=NoiseSchedule(),
        sampler=Sampler(steps=5, spacing="quadratic"),
        trajectories=Trajectories(count=8, batch_size=4, feature_rows=4, shards=1),
    )


@pytest.fixture(scope="session")
def float_unet(architecture: Architecture) -> UNet2DModel:
    """The full-precision network; shared, so leave it as it is."""
    unet = build_network(architecture)
    reinitialise(unet, 0)
    return unet.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@pytest.fixture(scope="session")
def calibration(architecture: Architecture) -> Calibration:
    """Eight states x_t and their t."""
    generator = keyed_generator(1, "calibration")
    size = architecture.image_size
    latents = torch.randn(8, architecture.in_channels, size, size, generator=generator)
    return latents, torch.tensor([990, 800, 640, 500, 333, 200, 50, 0])


@pytest.fixture(scope="session")
def bits() -> Bits:
    """W4A8, split shortcuts, the usual exceptions."""
    return Bits(weights=4, activations=8, range_batch_size=8, range_bins=512)


@pytest.fixture(scope="session")
def ranges(float_unet: UNet2DModel, calibration: Calibration, bits: Bits) -> dict[str, Tensor]:
    """Grids of the tiny U-Net at `bits`."""
    unet = quantized_copy(float_unet, bits)
    set_ranges(unet, as_rows(calibration), bits)
    return grids(unet)


@pytest.fixture
def gridded(float_unet: UNet2DModel, ranges: dict[str, Tensor], bits: Bits) -> Callable[[], nn.Module]:
    """Makes quantized copies with grids set and weights still in floating point."""

    def make() -> nn.Module:
        unet = quantized_copy(float_unet, bits)
        set_grids(unet, ranges)
        return unet

    return make


@pytest.fixture
def toy_backend(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a backend that is registered while a test runs."""
    entry = BackendEntry("toy", "tests.deploy.backends.toy", "by a toy", ("cpu",), precisions=("fp32",))
    monkeypatch.setitem(BACKENDS, entry.name, entry)
    return entry.name


@pytest.fixture(scope="session")
def settings() -> Reconstruction:
    """Few iterations of FBR."""
    return Reconstruction(iterations=2, batch_size=4, weight_lr=0.05, scale_lr=1e-4, chain_batch_size=4)
