"""Every kind of unit learns from its inner layers' errors, too; the official code's do not where it checkpoints (quirk Q6)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edadm.config.schema import Bits
from edadm.deploy.grids import quantized_copy
from edadm.learning.capture.arguments import Arguments
from edadm.learning.capture.data import listening
from edadm.learning.capture.pausing import PausingNetwork
from edadm.learning.steps.losses import squared_error
from edadm.networks.build import build_network
from edadm.networks.inputs import Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.units.trace import trace_units
from edadm.nn.insert import quantized_layers
from edadm.passes.ranges import set_ranges
from edadm.quant import ranges

from ..networks.families import random_network, tiny


def architecture_of(family: str) -> Architecture:
    """Of a tiny network of the family, at 8x8."""
    if family != "ddim_cifar10":
        return tiny(family).architecture
    return Architecture(
        image_size=8,
        channels=16,
        multipliers=(1, 2),
        blocks_per_level=1,
        attention_resolutions=(4,),
        norm_groups=4,
    )


KINDS = {
    "ddim_cifar10": {"res_block", "attention"},
    "ldm4_bedroom": {"res_block", "attention"},
    "ldm8_church": {"res_block", "attention"},
    "ldm4_imagenet": {"res_block", "transformer"},
    "sd14_coco": {"res_block", "transformer"},
}


@pytest.mark.parametrize(("family", "kinds"), KINDS.items())
def test_inner_errors_reach_the_rounding_of_every_kind_of_unit(
    family: str, kinds: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 10)
    architecture, generator = architecture_of(family), torch.Generator().manual_seed(2)
    unet = random_network(build_network(architecture), 1)
    rows: dict[str, Tensor] = {
        "latents": torch.randn(2, architecture.in_channels, 8, 8, generator=generator),
        "timesteps": torch.tensor([9, 700]),
    }
    if architecture.context_channels:
        rows["context"] = torch.randn(2, 5, architecture.context_channels, generator=generator)
    bits = Bits(weights=4, activations=8, range_bins=64)
    quantized = quantized_copy(unet, bits)
    set_ranges(quantized, Rows(rows), bits)
    units = trace_units(unet)
    chosen = {unit.kind: index for index, unit in enumerate(units) if unit.kind != "layer"}
    assert set(chosen) == kinds
    network = PausingNetwork(unet, [unit.name for unit in units])
    waiting = network.start(Rows(rows))
    arguments: list[Arguments] = []
    for _ in units:
        arguments.append(waiting.arguments())
        waiting.advance()
    network.close()
    for index in chosen.values():
        unit, inner = (
            units[index],
            [name.removeprefix(f"{units[index].name}.") for name in units[index].layers[:-1]],
        )
        module = quantized.get_submodule(unit.name)
        for name, layer in quantized_layers(
            module
        ).items():  # rounded weights lie on the grid: learning would start flat
            layer.weight.data = unet.get_submodule(f"{unit.name}.{name}").weight.data.clone()
        alphas = {name: layer.start_rounding() for name, layer in quantized_layers(module).items()}
        with torch.no_grad(), listening(unet.get_submodule(unit.name), inner) as targets:
            arguments[index].call(unet.get_submodule(unit.name))
        with listening(module, inner) as outputs:
            arguments[index].call(module)
        sum(squared_error(outputs[name], targets[name]) for name in inner).backward()
        for name in inner:
            gradient = alphas[name].grad
            assert gradient is not None, f"{unit.name}.{name}"
            assert gradient.abs().max() > 0, f"{unit.name}.{name}"
