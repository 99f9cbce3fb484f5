"""Networks counted without memory, against files, other counts and the published numbers."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

from edadm.config.load import load_config
from edadm.config.schema import Bits, LayerBits, Model, Reconstruction
from edadm.deploy.checkpoint import save_quantized
from edadm.deploy.grids import grids, quantized_copy
from edadm.networks.inputs import InputSpec
from edadm.networks.units.trace import trace_units
from edadm.nn.insert import quantized_layers
from edadm.stages.cost.networks import Networks

from ..networks.families import PUBLISHED, tiny
from ..networks.test_published import FACTS
from ..planning.fakes import published_networks

# Megabytes of the packed U-Net by the official count: weights at their bits, the rest fp32 (method, 7.1).
PACKED = {
    "ddim_cifar10": ("cifar10_w8a8", 35.91, "cifar10_w4a8", 18.07),
    "ldm4_bedroom": ("lsun_w8a8", 274.6, "lsun_w4a8", 137.7),
    "ldm8_church": ("lsun_w8a8", 295.6, "lsun_w4a8", 148.3),
    "ldm4_imagenet": ("imagenet_w8a8", 401.9, "imagenet_w4a8", 201.6),
    "sd14_coco": ("coco_w8a8", 860.9, "coco_w4a8", 431.3),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size_networks_have_the_published_counts(name: str) -> None:
    networks, config, facts = published_networks(name), load_config(), FACTS[name]
    assert networks.parameters == facts.parameters
    wide, wide_size, narrow, narrow_size = PACKED[name]
    for preset, size in ((wide, wide_size), (narrow, narrow_size)):
        quantized = networks.quantized(config.bits[preset])
        assert quantized.weights == facts.quantized_weights
        beside = quantized.bytes - size * 1e6  # scales, zero points, and at 4 bits the two layers of 8 bits
        assert 0 < beside < 0.03 * size * 1e6
    assert (
        len(networks.learned_units(config.reconstructions["seed_coco_w4"], config.bits[wide])) == facts.units
    )


@pytest.mark.parametrize(("weights", "split", "smoothing"), [(4, True, None), (8, False, 0.5)])
def test_the_tensors_of_a_checkpoint_have_the_bytes_that_were_counted(
    model: Model,
    float_unet: UNet2DModel,
    bits: Bits,
    weights: int,
    split: bool,
    smoothing: float | None,
    tmp_path: Path,
) -> None:
    changed = {"weights": weights, "split_shortcuts": split, "smoothing": smoothing}
    widths = bits.model_copy(update=changed)
    unet = quantized_copy(float_unet, widths)
    for layer in quantized_layers(unet).values():
        layer.weight_quantizer.set_grid(
            layer.weight_quantizer.scale, torch.full_like(layer.weight_quantizer.scale, 2.0 ** (weights - 1))
        )
        if layer.weight_quantizer.bits == 8:
            layer.weight_quantizer.set_grid(
                layer.weight_quantizer.scale, torch.full_like(layer.weight_quantizer.scale, 128.0)
            )
        layer.set_codes(layer.nearest_codes())
    save_quantized(unet, tmp_path / "q.safetensors", model.architecture, widths, {})
    content = (tmp_path / "q.safetensors").read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    counted = Networks(model).quantized(widths)
    assert len(content) - 8 - header == counted.bytes
    assert counted.grid_bytes == sum(tensor.nbytes for tensor in grids(unet).values())
    assert counted.layers == quantized_layers(unet).keys()


def test_layers_in_floating_point_are_no_quantized_ones_and_their_units_are_not_learned(
    model: Model, bits: Bits
) -> None:
    without = bits.model_copy(update={"layers": {"conv_out": LayerBits(weights=None, activations=None)}})
    networks, settings = Networks(model), Reconstruction()
    names = [unit.name for unit in networks.learned_units(settings, without)]
    assert names == [unit.name for unit in trace_units(networks.unet) if unit.name != "conv_out"]
    assert networks.learned_units(settings.model_copy(update={"method": "none"}), without) == []
    by_layer = networks.learned_units(settings.model_copy(update={"method": "layer"}), without)
    assert len(by_layer) == len(networks.quantized(without).layers)


def test_operations_of_units_add_up_to_nearly_those_of_the_network(model: Model) -> None:
    flops = Networks(model).flops
    units = trace_units(Networks(model).unet)
    convolution = 2 * 16 * 16 * 16 * 3 * 9  # conv_in: 16 x 16 positions, 16 channels from 3, 3 x 3
    assert flops["conv_in"] == convolution
    assert sum(flops[unit.name] for unit in units) == flops[""]


@pytest.mark.parametrize("name", ["ldm4_imagenet", "sd14_coco"])
def test_inputs_fit_the_network_and_features_are_those_of_the_middle(name: str) -> None:
    model = tiny(name)
    networks = Networks(model)
    rows = InputSpec.of(model).random(3, "cpu")
    assert [tuple(tensor.shape) for tensor in rows.tensors.values()] == [
        (3, *model.latent_shape),
        (3,),
        (3, *model.condition_shapes["context"]),
    ]
    width = model.architecture.channels * model.architecture.multipliers[-1]
    assert networks.feature_elements == width * 4 * 4
    assert networks.decode_bytes > 0
    assert networks.forward_bytes > networks.feature_elements * 4


def test_parts_are_counted_as_published() -> None:
    networks = published_networks("sd14_coco")
    assert networks.decoder_parameters == pytest.approx(83.65e6, abs=5e3)
    assert networks.condition_parameters == pytest.approx(123.06e6, abs=5e3)  # CLIP ViT-L/14's text encoder
    assert published_networks("ldm4_imagenet").condition_parameters == 1001 * 512
    plain = published_networks("ddim_cifar10")
    assert (plain.decoder_parameters, plain.condition_parameters, plain.decode_bytes) == (0, 0, 0)
