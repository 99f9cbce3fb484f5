"""A network that is quantized in memory, saved, loaded and exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, UNet2DModel, VQModel

import edadm
import edadm.library.quantize as in_memory
from edadm.config.inputs.settings import ConfigError
from edadm.errors import EdadmError
from edadm.networks.inputs import Rows
from edadm.nn.insert import quantized_layers
from edadm.passes.methods import run_method
from edadm.quant import ranges

from .conftest import BITS, LEARNING, images, pipeline, tiny_conditional, tiny_unet


@pytest.fixture(scope="module")
def quantized(unet: UNet2DModel, rows: Rows):
    return edadm.quantize(unet, rows, BITS, LEARNING)


def test_a_pipeline_takes_the_quantized_network(unet, quantized):
    assert isinstance(quantized, UNet2DModel)
    assert {layer.weight_quantizer.bits for layer in quantized_layers(quantized).values()} == {4, 8}
    full, rounded = images(unet)(), images(quantized)()
    assert 0 < np.abs(full - rounded).mean() < 0.2
    assert not quantized_layers(unet)


def test_rounding_is_learned_from_the_float_weights(unet, rows, monkeypatch: pytest.MonkeyPatch):
    """Not from those that the search of ranges has rounded."""
    before: list[bool] = []

    def looking(task):
        layers = quantized_layers(task.quantized_unet)
        before.extend(
            torch.equal(layer.weight, unet.get_submodule(name).weight) for name, layer in layers.items()
        )
        run_method(task)

    monkeypatch.setattr(ranges, "THRESHOLDS", 4)
    monkeypatch.setattr(in_memory, "run_method", looking)
    edadm.quantize(unet, rows, BITS, {"base": "none"})
    assert before
    assert all(before)


def test_what_is_saved_is_loaded(quantized, tmp_path: Path):
    pipeline(quantized).save_pretrained(tmp_path)
    again = DDIMPipeline.from_pretrained(tmp_path).unet
    for one in (again, edadm.load(tmp_path)):
        np.testing.assert_array_equal(images(one)(), images(quantized)())
    assert quantized.facts["provenance"]["reconstruction"]["iterations"] == 2


def test_an_exported_network_needs_no_edadm(quantized, tmp_path: Path):
    quantized.save_pretrained(tmp_path / "packed")
    (file,) = (tmp_path / "packed").glob("*.safetensors")
    edadm.export(file, tmp_path / "plain", "diffusers", "fp32")
    plain = UNet2DModel.from_pretrained(tmp_path / "plain")
    weights = {name: layer.unsmoothed_weight for name, layer in quantized_layers(quantized).items()}
    assert weights
    assert all(torch.equal(plain.get_submodule(name).weight, weight) for name, weight in weights.items())


def test_a_context_is_learned_with():
    unet = tiny_conditional()
    context = torch.randn(4, 5, 12)
    given = Rows({"latents": torch.randn(4, 4, 8, 8), "timesteps": torch.full((4,), 500), "context": context})
    found = edadm.quantize(unet, given, BITS, "none")
    with torch.no_grad():
        expected = unet(given.latents, given.timesteps, context).sample
        apart = (found(given.latents, given.timesteps, context).sample - expected).norm() / expected.norm()
    assert 0 < apart < 0.5


def test_other_networks_are_refused_in_a_sentence(rows):
    with pytest.raises(EdadmError, match="not a VQModel"):
        edadm.quantize(VQModel(block_out_channels=(32,)), rows)
    changed = tiny_unet()
    changed.mid_block.resnets[0].register_forward_hook(lambda module, given, made: 3 * made + 1)
    with pytest.raises(EdadmError, match="predicts something else than its configuration and weights say"):
        edadm.quantize(changed, rows)
    changed = tiny_unet()
    changed.conv_in.register_parameter("more", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises(EdadmError, match=r"such as conv_in\.more; fuse or unload adapters"):
        edadm.quantize(changed, rows)
    with pytest.raises(ConfigError, match="there is no preset 'w4a9' among bits"):
        edadm.quantize(tiny_unet(), rows, "w4a9")


def test_the_example_is_a_plain_network_of_diffusers():
    unet = edadm.example_unet()
    assert type(unet) is UNet2DModel
    assert sum(parameter.numel() for parameter in unet.parameters()) == 4_624_515
    assert (unet.config.sample_size, unet.training) == (32, False)
