"""The same networks in other arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edadm.benchmark.cpu import cpu_rivals, parity, shares_of_time, slower_arithmetic
from edadm.deploy.fuse.cpu import CpuLayer
from edadm.networks.families import network_call
from edadm.networks.inputs import InputSpec
from edadm.nn.insert import quantized_layers

from ..conftest import as_rows

INPUTS = InputSpec({"latents": (3, 16, 16), "timesteps": ()})


@pytest.fixture
def networks(float_unet: nn.Module, gridded: Callable[[], nn.Module]) -> dict[str, nn.Module]:
    quantized = gridded()
    for layer in quantized_layers(quantized).values():
        layer.set_codes(layer.nearest_codes())
    return {"fp32": float_unet, "a/w4a8/b": quantized}


@torch.no_grad()
def test_a_float_network_is_timed_in_bf16_and_a_quantized_one_with_integers(
    networks: dict[str, nn.Module], calibration: tuple[Tensor, Tensor]
) -> None:
    before = networks["fp32"](*calibration).sample
    rivals = cpu_rivals(networks)
    assert set(rivals) == {"fp32/bf16", "a/w4a8/b/integer"}
    half = network_call(rivals["fp32/bf16"], as_rows(calibration))
    assert half.dtype == torch.float32
    assert 0 < (half - before).abs().max() < 0.1
    assert torch.equal(networks["fp32"](*calibration).sample, before)
    assert any(isinstance(module, CpuLayer) for module in rivals["a/w4a8/b/integer"].modules())


def test_shares_of_time_add_up_and_name_what_runs(networks: dict[str, nn.Module]) -> None:
    shares = shares_of_time(networks["fp32"], INPUTS, 2)
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert {"convolution and linear", "normalisation", "activation", "attention products"} <= set(shares)


def test_parity_is_the_distance_of_two_predictions(networks: dict[str, nn.Module]) -> None:
    same = parity(networks["fp32"], networks["fp32"], INPUTS, 4)
    assert same["mean"] == same["max"] == 0
    other = parity(networks["fp32"], networks["a/w4a8/b"], INPUTS, 4)
    assert 0 < other["mean"] < other["max"]
    assert other["spread"] == same["spread"] > 0


def test_arithmetic_that_is_slower_than_fp32_is_called_so() -> None:
    timed = {
        "fp32": {"seconds": 2.0, "bf16": {"seconds": 18.0}},
        "a/w8a8/b": {"seconds": 3.0, "integer": {"seconds": 2.5}},
        "a/w4a8/b": {"seconds": 3.0, "integer": {"seconds": 1.5}},
    }
    bf16, w8a8 = slower_arithmetic(timed)
    assert bf16.startswith("fp32 with bf16 takes 9.00 times as long as fp32 with fp32 on this processor (")
    assert w8a8.startswith("a/w8a8/b with integer takes 1.25 times as long")
    assert bf16.endswith("it saves memory here, not time")
    assert not list(slower_arithmetic({"a": {"seconds": 3.0, "integer": {"seconds": 2.5}}}))
