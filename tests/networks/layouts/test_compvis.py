"""CompVis' names and back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edadm.networks.layouts import compvis_autoencoder, compvis_unet

from ..families import original_autoencoder, original_unet, tiny


def check_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("name", ["ldm4_imagenet", "sd14_coco"])
@pytest.mark.parametrize("levels", [1, 2])
def test_a_unet_gets_its_names_back(name: str, levels: int) -> None:
    """Also one with attention at all levels, behind which the place of an upsampler moves."""
    model = tiny(name)
    sizes = {"attention_resolutions": (8, 4)[-levels:], "blocks_per_level": levels}
    model = model.model_copy(update={"architecture": model.architecture.model_copy(update=sizes)})
    state = dict(original_unet(model).state_dict())
    there = compvis_unet.to_diffusers(state, model.architecture)
    check_equal(compvis_unet.from_diffusers(there, model.architecture), state)
    with pytest.raises(KeyError, match=r"'up_blocks.0' is not a module of a U-Net with a context"):
        compvis_unet.from_diffusers({"up_blocks.0.weight": torch.zeros(1)}, model.architecture)


@pytest.mark.parametrize("name", ["ldm4_imagenet", "sd14_coco"])
def test_an_autoencoder_gets_its_names_back(name: str) -> None:
    state = dict(original_autoencoder(tiny(name)).state_dict())
    there = compvis_autoencoder.to_diffusers(state)
    back = compvis_autoencoder.from_diffusers(there)
    check_equal({key: tensor.reshape(back[key].shape) for key, tensor in state.items()}, back)
    assert all(tensor.squeeze().shape == back[key].squeeze().shape for key, tensor in state.items())
