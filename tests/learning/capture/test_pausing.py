"""Forward passes that pause at units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.learning.capture.pausing import PausingNetwork
from edadm.networks.units.trace import trace_units
from edadm.offload.cache import Memory
from edadm.offload.limits import TIERS, Limits

from ...conftest import as_rows

Calibration = tuple[Tensor, Tensor]


@pytest.fixture
def names(float_unet: UNet2DModel) -> list[str]:
    return [unit.name for unit in trace_units(float_unet)]


@pytest.fixture
def pausing(float_unet: UNet2DModel, names: list[str]) -> Iterator[PausingNetwork]:
    network = PausingNetwork(float_unet, names)
    yield network
    network.close()


def plain_outputs(unet: nn.Module, names: list[str], calibration: Calibration) -> dict[str, Tensor]:
    """Outputs of all units in a forward without pauses."""
    outputs: dict[str, Tensor] = {}
    handles = [
        unet.get_submodule(name).register_forward_hook(
            lambda _, __, output, n=name: outputs.__setitem__(n, output.clone())
        )
        for name in names
    ]
    with torch.no_grad():
        unet(*calibration)
    for handle in handles:
        handle.remove()
    return outputs


def test_every_unit_gives_what_it_gives_in_a_plain_forward_bit_for_bit(
    float_unet: UNet2DModel, names: list[str], calibration: Calibration
) -> None:
    expected = plain_outputs(float_unet, names, calibration)
    network = PausingNetwork(float_unet, names)
    waiting = network.start(as_rows(calibration))
    for name in names:
        assert torch.equal(waiting.run_unit(), expected[name]), name
        waiting.next_unit()
    network.close()


def test_interleaved_passes_do_not_disturb_each_other(
    float_unet: UNet2DModel, pausing: PausingNetwork, names: list[str], calibration: Calibration
) -> None:
    x, t = calibration
    halves = [(x[:4], t[:4]), (x[4:], t[4:])]
    passes = [pausing.start(as_rows(half)) for half in halves]
    seen: list[dict[str, Tensor]] = [{}, {}]
    for name in names:
        for outputs, waiting in zip(seen, passes, strict=True):
            outputs[name] = waiting.run_unit()
        for waiting in passes:
            waiting.next_unit()
    pausing.close()
    for half, outputs in zip(halves, seen, strict=True):
        expected = plain_outputs(float_unet, names, half)
        assert all(torch.equal(outputs[name], expected[name]) for name in names)


def test_the_arguments_are_those_of_the_unit(
    pausing: PausingNetwork, names: list[str], calibration: Calibration
) -> None:
    waiting, calls = pausing.start(as_rows(calibration)), {}
    for name in names:
        calls[name] = waiting.arguments()
        waiting.run_unit()
        waiting.next_unit()
    assert torch.equal(calls["conv_in"].tensors[0], calibration[0])
    assert [(key, x.shape) for key, x in calls["mid_block.resnets.0"].tensors.items()] == [
        (0, (8, 32, 8, 8)),
        (1, (8, 64)),
    ]
    assert calls["mid_block.attentions.0"].tensors[0].shape == (8, 32, 8, 8)
    assert calls["mid_block.attentions.0"].main == 0


def test_a_waiting_pass_meets_changes_made_to_a_module(
    gridded: Callable[[], nn.Module], names: list[str], calibration: Calibration
) -> None:
    unet = gridded()
    network = PausingNetwork(unet, names)
    waiting = network.start(as_rows(calibration))
    while_waiting = {}
    for name in names:
        if name == "mid_block.resnets.1":
            layer = unet.get_submodule("mid_block.resnets.1.conv1")
            layer.set_codes(layer.nearest_codes())
        if name == "conv_out":
            unet.get_submodule("conv_out").bias.data = torch.ones(
                3
            )  # replaced, since the float network shares the old one
        while_waiting[name] = waiting.run_unit()
        waiting.next_unit()
    network.close()
    changed = plain_outputs(unet, names, calibration)
    untouched = plain_outputs(gridded(), names, calibration)
    for name in names:
        assert torch.equal(while_waiting[name], changed[name]), name
    assert not torch.equal(changed["mid_block.resnets.1"], untouched["mid_block.resnets.1"])
    assert torch.equal(changed["mid_block.resnets.0"], untouched["mid_block.resnets.0"])


def test_a_unit_can_be_called_while_passes_wait_without_disturbing_them(
    float_unet: UNet2DModel, pausing: PausingNetwork, names: list[str], calibration: Calibration
) -> None:
    waiting = pausing.start(as_rows(calibration))
    module = float_unet.get_submodule(names[0])
    inputs = list(waiting.arguments().tensors.values())
    own = module(*(2 * x for x in inputs))
    assert torch.equal(waiting.run_unit(), module(*inputs))
    assert not torch.equal(own, module(*inputs))


@pytest.mark.parametrize("learning", [True, False])
def test_the_grad_mode_of_the_caller_stays_his_own_and_the_pass_records_no_graph(
    learning: bool,
    pausing: PausingNetwork,
    names: list[str],
    calibration: Calibration,
    float_unet: UNet2DModel,
) -> None:
    weight = float_unet.get_submodule("conv_in").weight
    weight.requires_grad_(True)
    try:
        with torch.set_grad_enabled(learning):
            waiting = pausing.start(as_rows(calibration))
            for _ in names:
                assert torch.is_grad_enabled() is learning
                assert not waiting.run_unit().requires_grad
                waiting.next_unit()
            assert torch.is_grad_enabled() is learning
    finally:
        weight.requires_grad_(False)


def test_calling_twice_without_going_on_is_an_error(
    pausing: PausingNetwork, calibration: Calibration
) -> None:
    waiting = pausing.start(as_rows(calibration))
    waiting.run_unit()
    with pytest.raises(AssertionError, match="call `next_unit` first"):
        waiting.run_unit()


def test_closing_removes_the_hooks(
    float_unet: UNet2DModel, names: list[str], calibration: Calibration
) -> None:
    PausingNetwork(float_unet, names).close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in float_unet.modules())
    assert float_unet(*calibration).sample.shape == calibration[0].shape


def test_waiting_passes_hold_no_more_memory_than_allowed_and_end_as_without_limits(
    float_unet: UNet2DModel, calibration: Calibration, tmp_path: Path
) -> None:
    names = [unit.name for unit in trace_units(float_unet)]
    with torch.no_grad():
        expected = float_unet(*calibration).sample
    memory = Memory(torch.device("cpu"), Limits(device=60_000, host=40_000, scratch=tmp_path))
    network = PausingNetwork(float_unet, names, memory)
    passes = [network.start(batch) for batch in as_rows(calibration).split(2)]
    resident, outputs = [], []
    for name in names:
        for waiting in passes:
            output = waiting.run_unit()
            if name == names[-1]:
                outputs.append(output.clone())
            del output
            waiting.next_unit()
        assert all(waiting._memory is not None for waiting in passes)
        resident.append(sum(waiting._memory.bytes_alive() for waiting in passes if waiting._memory))
        assert resident[-1] <= memory.storage.used["device"] <= 60_000
        assert memory.storage.used["host"] <= 40_000
    network.close()
    assert max(resident) > 30_000
    assert memory.storage.most["disk"] > 100_000
    assert memory.storage.used == dict.fromkeys(TIERS, 0)
    for output, batch in zip(outputs, expected.split(2), strict=True):
        torch.testing.assert_close(output, batch, rtol=1e-4, atol=1e-5)
