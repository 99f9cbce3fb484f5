"""Which site of the five published networks has which scheme."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from edadm.config.load import load_config
from edadm.networks.build import build_network
from edadm.networks.families import family_of
from edadm.networks.units.site import sites_of
from edadm.quant.policy import policy

from .families import published

PRESETS = {
    "ddim_cifar10": "cifar10_w4a8",
    "ldm4_bedroom": "lsun_w4a8",
    "ldm8_church": "lsun_w4a8",
    "ldm4_imagenet": "imagenet_w4a8",
    "sd14_coco": "coco_w4a8",
}
LAYERS = {  # with attentions and split shortcuts
    "ddim_cifar10": (113, 6, 12),
    "ldm4_bedroom": (155, 16, 12),
    "ldm8_church": (210, 21, 15),
    "ldm4_imagenet": (283, 32, 12),
    "sd14_coco": (282, 32, 0),
}


@pytest.mark.parametrize("name", LAYERS)
def test_each_site_of_a_published_run_has_the_published_scheme(name: str) -> None:
    layers, attentions, splits = LAYERS[name]
    with torch.device("meta"):
        network = build_network(published(name).architecture)
    sites = sites_of(network, family_of(network).concatenations(network))
    for width in (4, 8):
        bits = load_config().bits[PRESETS[name].replace("w4", f"w{width}")]
        schemes = policy(sites, bits)
        found = Counter((site.role, str(schemes[site.name].scheme)) for site in sites if site.name in schemes)
        per_tensor, per_channel = "static affine int8 per tensor", "static affine int8 per channel"
        expected = Counter({(role, per_tensor): attentions for role in ("q", "k", "v", "probabilities")})
        expected["input", per_tensor] = layers - 1
        expected["weight", per_channel] = 2 if width == 4 else layers
        expected["weight", "static affine int4 per channel"] = layers - 2 if width == 4 else 0
        assert found == expected
        assert {site.name for site in sites} - schemes.keys() == {"conv_out.input"}
        split = {name for name, given in schemes.items() if len(given.segments) == 2}
        assert len(split) == 2 * splits
        assert {name.rpartition(".")[2] for name in split} <= {"weight", "input"}
        if width == 4:
            assert schemes["time_embedding.linear_1.weight"].scheme.format.bits == 8
            assert schemes["conv_out.weight"].scheme.format.bits == 8
