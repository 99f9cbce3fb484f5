"""The number of pixels beyond which attention leaves its weights off their grid."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edadm.config.schema import Bits
from edadm.networks.families import network_call
from edadm.nn.attention import QuantizedAttention
from edadm.nn.sizes import keep_to_size

from ..networks.families import calibrated

BITS = Bits(weights=8, activations=8, range_batch_size=4, range_bins=64)


@pytest.mark.parametrize(("family", "counts"), [("ldm8_church", {64, 16, 4}), ("sd14_coco", {16})])
def test_each_attention_knows_how_many_pixels_it_was_calibrated_with(
    family: str, counts: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edadm.quant.ranges.THRESHOLDS", 10)
    _, unet, rows = calibrated(family, BITS)
    keep_to_size(unet, 8, 8)
    expected = {
        name: module.processor.most_keys
        for name, module in unet.named_modules()
        if isinstance(module, QuantizedAttention)
    }
    found: dict[str, int] = {}
    for name, module in unet.named_modules():
        if isinstance(module, QuantizedAttention):
            quantizer = module.processor.softmax_quantizer
            quantizer.register_forward_hook(
                lambda _, args, __, name=name: found.update({name: args[0].shape[-1]})
            )
    with torch.no_grad():
        network_call(unet, rows)
    assert found.keys() == expected.keys()
    assert {
        name: keys for name, keys in found.items() if not unet.get_submodule(name).is_cross_attention
    } == {name: keys for name, keys in expected.items() if keys is not None}
    assert {keys for keys in expected.values() if keys} == counts


class Toy(nn.Module):
    """What of a network the warning looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList([nn.Identity()])
        self.attn_processors = {"a": SimpleNamespace(most_keys=16)}

    def forward(self, sample: Tensor) -> Tensor:
        return sample + 1


@pytest.mark.parametrize("compiled", [False, True])
def test_a_network_warns_once_and_only_of_larger_images(compiled: bool) -> None:
    toy: Any = Toy()
    keep_to_size(toy, 4, 6)
    call = torch.compile(toy, backend="eager", fullgraph=True) if compiled else toy
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call(torch.zeros(1, 1, 4, 6))
        call(torch.zeros(1, 1, 6, 4))
        assert not said
        call(torch.zeros(1, 1, 5, 6))
        call(torch.zeros(1, 1, 8, 8))
    assert [str(warning.message)[:62] for warning in said] == [
        "this network was calibrated with latents of 4 x 6; at larger o"
    ]


def test_a_network_without_such_grids_says_nothing() -> None:
    toy: Any = Toy()
    toy.attn_processors = {"a": object()}
    keep_to_size(toy, 4, 4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        toy(sample=torch.zeros(1, 1, 8, 8))
    assert (said, toy.was_told) == ([], False)
