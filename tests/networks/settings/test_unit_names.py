"""Names of layers and units that are told without the network are those of the network."""

from __future__ import annotations

import pytest
from torch import nn

from edadm.config.load import load_config
from edadm.config.methods import METHODS
from edadm.config.schema import Reconstruction
from edadm.networks.build import build_network
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.unit_names import idle_patterns, unit_layers
from edadm.networks.units.temporal import units_of
from edadm.networks.units.trace import trace_units

SMALL = {
    "image_size": 8,
    "channels": 8,
    "norm_groups": 4,
    "blocks_per_level": 1,
    "multipliers": (1, 2),
    "attention_resolutions": (4,),
}
SIZES = (
    {},
    {"blocks_per_level": 2, "multipliers": (1, 1, 2), "attention_resolutions": (8, 2)},
    {"multipliers": (2,), "attention_resolutions": ()},
    {"family": "ldm", "heads": 2},
    {
        "family": "ldm",
        "head_channels": 4,
        "resample": "res_block",
        "scale_shift": True,
        "multipliers": (1, 2, 2),
    },
    {"family": "transformer", "heads": 2, "context_channels": 6, "blocks_per_level": 2},
    {"family": "transformer", "heads": 2, "context_channels": 6, "attention_resolutions": (8, 4)},
)


@pytest.mark.parametrize("sizes", SIZES)
def test_units_and_layers_are_those_of_the_network(sizes: dict) -> None:
    architecture = Architecture(**SMALL | sizes)
    network, told = build_network(architecture), unit_layers(architecture)
    assert told is not None
    units = trace_units(network)
    assert {unit.name: set(unit.layers) for unit in units} == {
        name: set(layers) for name, layers in told.items()
    }
    layers = {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert {layer for names in told.values() for layer in names} == layers
    for name in ("fbr", "layer", "tfmq"):
        expected = {unit.name for unit in units_of(network, Reconstruction(method=name))}
        assert set(METHODS[name].units(told)) == expected, name


OF_ONE = "edadm_w4a8_small"  # names layers of the bundled model
OF_TRANSFORMERS = {"dit_": "dit_xl2", "pixart_": "pixart_xl2"}  # begin so, and name layers of these


def test_every_pattern_of_the_package_matches_in_every_family() -> None:
    config = load_config()
    for sizes in SIZES[2:6]:
        layers = [layer for names in unit_layers(Architecture(**SMALL | sizes)).values() for layer in names]
        for name, bits in config.bits.items():
            if name != OF_ONE and not name.startswith((*OF_TRANSFORMERS, "mmdit_")):
                assert list(idle_patterns(bits.layers, layers)) == []
    for start, model in OF_TRANSFORMERS.items():
        units = unit_layers(config.models[model].architecture)
        layers = [layer for names in units.values() for layer in names]
        for name in (f"{start}w8a8", f"{start}w4a8"):
            assert list(idle_patterns(config.bits[name].layers, layers)) == []
    bundled = unit_layers(config.models["cifar10_small"].architecture)
    assert (
        list(idle_patterns(config.bits[OF_ONE].layers, [n for names in bundled.values() for n in names]))
        == []
    )


def test_an_idle_pattern_comes_with_what_may_have_been_meant() -> None:
    names = ["conv_in", "down_blocks.0.resnets.0.conv1", "conv_out"]
    assert list(idle_patterns(["conv_*", "*.conv1", "con_in"], names)) == [
        ("con_in", "did you mean 'conv_in'?")
    ]
    assert list(idle_patterns(["?"], names)) == [("?", "names are such as 'conv_in' and 'conv_out'")]
