"""The integer network for GPUs against the simulated model; on a CPU it computes by the operations' plain meaning."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from edadm.benchmark.integer import quantized_by_magnitude
from edadm.config.load import load_config
from edadm.config.schema import Bits
from edadm.deploy.backends.cuda_int8 import computes_with_integers, lower_for_cuda
from edadm.deploy.fuse.attention import IntegerFeedForward, IntegerSelfAttention
from edadm.deploy.fuse.layers import IntegerConv2d
from edadm.deploy.fuse.transformer import IntegerTransformer, IntegerTransformerBlock
from edadm.deploy.fuse.unet import IntegerResnetBlock, IntegerUpBlock
from edadm.deploy.grids import quantized_copy
from edadm.errors import EdadmError
from edadm.kernels.int8 import reference
from edadm.networks.families import network_call
from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.random_weights import random_network
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from edadm.passes.ranges import set_ranges

from ...conftest import as_rows
from ...networks.families import tiny

Calibration = tuple[Tensor, Tensor]
LAYER_BOUND = 1e-5  # of a layer's largest output, fp32 against fp32
IMAGE_BOUND = 1.0  # of the mean quantization error: a sum rounded otherwise makes a code its neighbour, and what follows moves
HALF_BOUND = 2.0  # the same in bf16


def without_attention_grids(unet: nn.Module) -> nn.Module:
    for name, quantizer in activation_quantizers(unet).items():
        if "processor" in name:
            quantizer.enabled = False
    return unet


@pytest.fixture
def folded(gridded: Callable[[], nn.Module]) -> nn.Module:
    """W4A8 with codes; attention's grids are off, since the integer network has none."""
    unet = gridded()
    for layer in quantized_layers(unet).values():
        layer.set_codes(layer.nearest_codes())
    return without_attention_grids(unet.eval())


@torch.no_grad()
def test_every_integer_layer_agrees_with_its_simulation(folded: nn.Module, calibration: Calibration) -> None:
    lowered, seen = dict(lower_for_cuda(folded, torch.float32, fuse=False).named_modules()), []

    def assert_near(name: str, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(name)
        assert (lowered[name](*inputs) - output).abs().max() <= LAYER_BOUND * output.abs().max(), name

    expected = [name for name, layer in quantized_layers(folded).items() if computes_with_integers(layer)]
    for name in expected:
        assert isinstance(lowered[name], IntegerConv2d)
        folded.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, n=name: assert_near(n, inputs, output)
        )
    folded(*calibration)
    assert sorted(seen) == sorted(expected)
    assert [name for name, layer in lowered.items() if isinstance(layer, QuantizedLayer)] == []


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, IMAGE_BOUND), (torch.bfloat16, HALF_BOUND)])
@torch.no_grad()
def test_the_network_agrees_with_its_simulation(
    folded: nn.Module,
    float_unet: UNet2DModel,
    calibration: Calibration,
    dtype: torch.dtype,
    bound: float,
    fuse: bool,
) -> None:
    x, timesteps = calibration
    simulated, exact = folded(x, timesteps).sample, float_unet(x, timesteps).sample
    lowered = lower_for_cuda(folded, dtype, fuse=fuse)
    difference = lowered(x.to(dtype), timesteps).sample.float() - simulated
    per_image = (
        difference.square().mean((1, 2, 3)).sqrt() / (simulated - exact).square().mean((1, 2, 3)).sqrt()
    )
    assert per_image.max() < bound


@torch.no_grad()
def test_eight_bit_weights_with_either_zero_point(float_unet: UNet2DModel, calibration: Calibration) -> None:
    widths = Bits(weights=8, activations=8, range_batch_size=8, range_bins=512)
    unet = quantized_copy(float_unet, widths)
    set_ranges(unet, as_rows(calibration), widths)
    for layer in quantized_layers(unet).values():
        grid = layer.weight_quantizer
        parity = torch.arange(len(grid.zero_point)).remainder(2)[:, None].expand_as(grid.zero_point)
        grid.set_grid(grid.scale, 127.0 + parity)
        layer.set_codes(layer.nearest_codes())
    without_attention_grids(unet)
    simulated, exact = unet(*calibration).sample, float_unet(*calibration).sample
    difference = lower_for_cuda(unet, torch.float32)(*calibration).sample - simulated
    assert difference.square().mean().sqrt() < IMAGE_BOUND * (simulated - exact).square().mean().sqrt()


def test_layers_that_do_not_compute_with_integers_and_attention(folded: nn.Module) -> None:
    lowered = lower_for_cuda(folded, fuse=False)
    for name, layer in quantized_layers(folded).items():
        made = lowered.get_submodule(name)
        if layer.input_quantizer is None:
            assert type(made) in (nn.Conv2d, nn.Linear)
            assert made.weight.dtype == torch.bfloat16
            torch.testing.assert_close(made.weight.float(), layer.weight, rtol=2**-8, atol=0)
    assert all(
        isinstance(m.processor, AttnProcessor2_0) for m in lowered.modules() if isinstance(m, Attention)
    )
    assert lowered.conv_norm_out.weight.dtype == torch.bfloat16


def test_windows_and_widths_that_the_kernel_does_not_know() -> None:
    assert computes_with_integers(QuantizedLinear(nn.Linear(4, 4), 8, 8, (4,)))
    assert not computes_with_integers(QuantizedLinear(nn.Linear(4, 4), 8, None, (4,)))
    assert not computes_with_integers(QuantizedLinear(nn.Linear(4, 4), 8, 16, (4,)))
    for options in (
        {"groups": 2},
        {"dilation": 2},
        {"stride": (1, 2)},
        {"padding": (0, 1)},
        {"padding": "same"},
    ):
        assert not computes_with_integers(QuantizedConv2d(nn.Conv2d(4, 4, 3, **options), 8, 8, (4,))), options
    assert computes_with_integers(QuantizedConv2d(nn.Conv2d(4, 4, 3, stride=2, padding=1), 8, 8, (4,)))


@pytest.fixture(scope="module")
def transformer() -> tuple[nn.Module, Rows]:
    """A tiny U-Net with feed-forward layers, W4A8, and its inputs."""
    model, cpu = tiny("sd14_coco"), torch.device("cpu")
    inputs = InputSpec.of(model).random(2, cpu)
    return quantized_by_magnitude(
        random_network(model, cpu), load_config({}).bits["official_w4a8"], inputs
    ), inputs


@pytest.mark.parametrize(
    ("dtype", "farthest", "share"), [(torch.float32, 1, 0.002), (torch.bfloat16, 2, 0.1)]
)
@torch.no_grad()
def test_a_fused_feed_forward_writes_the_numbers_that_its_layers_would(
    transformer: tuple[nn.Module, Rows], dtype: torch.dtype, farthest: int, share: float
) -> None:
    """Unfused, in bf16, projection, gate and product are rounded to 8 bits of mantissa each: a number near 127 moves by up to 2."""
    plain, fused = (lower_for_cuda(transformer[0], dtype, fuse=fuse) for fuse in (False, True))
    found = {name: module for name, module in fused.named_modules() if isinstance(module, IntegerFeedForward)}
    assert found
    for name, module in found.items():
        x = (2 * torch.randn(2, 9, module.first.sizes[0], generator=torch.Generator().manual_seed(0))).to(
            dtype
        )
        original = plain.get_submodule(name)
        (one,), (two,) = module.first.segments, module.second.segments
        expected = two.quantize_input(original.net[0](x)).flatten(0, 1).int()
        grid = one.scale, one.offset, two.input_scale, *two.qmin_qmax, two.zero
        difference = (
            reference.geglu(one.quantize_input(x).flatten(0, 1), one.integers().flatten(1), *grid).int()
            - expected
        ).abs()
        assert expected.float().std() > 10
        assert difference.max() <= farthest
        assert (difference > 0).float().mean() < share
        assert module(x).dtype == dtype
        step = torch.finfo(dtype).eps
        torch.testing.assert_close(
            module(x), original(x), rtol=2 * step, atol=0.02 * original(x).abs().max().item()
        )


TRANSFORMERS = {IntegerFeedForward, IntegerTransformerBlock, IntegerTransformer}
FUSED = {
    "sd14_coco": {IntegerResnetBlock, IntegerUpBlock} | TRANSFORMERS,
    "ldm8_church": {IntegerResnetBlock, IntegerUpBlock, IntegerSelfAttention},
    "ldm4_imagenet": {IntegerResnetBlock, IntegerUpBlock} | TRANSFORMERS,
    "ldm4_bedroom": {IntegerResnetBlock, IntegerUpBlock, IntegerSelfAttention},
}


@pytest.mark.parametrize("family", FUSED)
@torch.no_grad()
def test_a_network_with_fused_ends_gives_nearly_the_same(family: str) -> None:
    model, cpu = tiny(family), torch.device("cpu")
    inputs = InputSpec.of(model).random(2, cpu)
    unet = quantized_by_magnitude(random_network(model, cpu), load_config({}).bits["official_w8a8"], inputs)
    exact = network_call(unet, inputs)
    plain, fused = (lower_for_cuda(unet, torch.float32, fuse=fuse) for fuse in (False, True))
    kept = [module for module in fused.modules() if isinstance(module, ResnetBlock2D)]
    assert all(module.upsample or module.downsample for module in kept)
    assert {type(module) for module in fused.modules()} & set().union(*FUSED.values()) == FUSED[family]
    assert not any(isinstance(module, Attention) for module in fused.modules())
    difference = network_call(fused, inputs) - network_call(plain, inputs)
    assert difference.square().mean() < 1e-4 * exact.square().mean()


@torch.no_grad()
def test_a_residual_block_with_its_addition_at_the_end_of_a_product(folded: nn.Module) -> None:
    plain, fused = (lower_for_cuda(folded, torch.float32, fuse=fuse) for fuse in (False, True))
    found = {name: module for name, module in fused.named_modules() if isinstance(module, IntegerResnetBlock)}
    assert {module.conv_shortcut is None for module in found.values()} == {True, False}
    for name, module in found.items():
        generator = torch.Generator().manual_seed(0)
        channels, features = module.affine1.weight.shape[1], module.time_emb_proj.sizes[0]
        x, temb = (
            torch.randn(2, channels, 8, 8, generator=generator),
            torch.randn(2, features, generator=generator),
        )
        expected = plain.get_submodule(name)(x, temb)
        difference = (
            module(x, temb) - expected
        )  # where a value lies between two numbers, it may become the other one
        assert difference.square().mean() < 1e-5 * expected.square().mean()


@torch.no_grad()
def test_fused_networks_refuse_what_changes_skips() -> None:
    model, cpu = tiny("sd14_coco"), torch.device("cpu")
    inputs = InputSpec.of(model).random(2, cpu)
    unet = quantized_by_magnitude(random_network(model, cpu), load_config({}).bits["official_w8a8"], inputs)
    fused = lower_for_cuda(unet, torch.float32)
    fused.enable_freeu(0.9, 0.2, 1.2, 1.4)
    with pytest.raises(EdadmError, match="FreeU"):
        network_call(fused, inputs)
    fused.disable_freeu()
    assert network_call(fused, inputs).isfinite().all()


@torch.no_grad()
def test_attention_with_its_normalisation_and_its_addition_in_its_products(folded: nn.Module) -> None:
    plain, fused = (lower_for_cuda(folded, torch.float32, fuse=fuse) for fuse in (False, True))
    found = {
        name: module for name, module in fused.named_modules() if isinstance(module, IntegerSelfAttention)
    }
    assert found
    for name, module in found.items():
        x = torch.randn(2, module.affine.weight.shape[1], 8, 8, generator=torch.Generator().manual_seed(0))
        expected = plain.get_submodule(name)(x)
        difference = module(x, temb=None) - expected
        assert difference.square().mean() < 1e-5 * expected.square().mean()
        assert [
            kept.dtype
            for kept in module.bfloat16().buffers()
            if kept.is_floating_point() and kept.dtype != torch.float32
        ] == []


@torch.no_grad()
def test_fused_transformers_mask_their_context_and_refuse_arguments_of_other_processors(
    transformer: tuple[nn.Module, Rows],
) -> None:
    unet, rows = transformer
    inputs = (rows.latents, rows.timesteps, rows.tensors["context"])
    plain, fused = (lower_for_cuda(unet, torch.float32, fuse=fuse) for fuse in (False, True))
    keep = torch.ones(inputs[2].shape[:2])
    keep[0, 1:] = 0
    unmasked, masked = (
        plain(*inputs, encoder_attention_mask=mask, return_dict=False)[0] for mask in (None, keep)
    )
    difference = fused(*inputs, encoder_attention_mask=keep, return_dict=False)[0] - masked
    assert difference.square().mean() < 1e-4 * masked.square().mean()
    assert (masked - unmasked)[0].square().mean() > 10 * difference.square().mean()
    with pytest.raises(EdadmError, match="cross_attention_kwargs"):
        fused(*inputs, cross_attention_kwargs={"ip_adapter_masks": None}, return_dict=False)


@torch.no_grad()
def test_a_transformer_block_between_normalisations_and_additions(
    transformer: tuple[nn.Module, Rows],
) -> None:
    plain, fused = (lower_for_cuda(transformer[0], torch.float32, fuse=fuse) for fuse in (False, True))
    blocks = [name for name, module in plain.named_modules() if isinstance(module, BasicTransformerBlock)]
    found = [module for module in fused.modules() if isinstance(module, IntegerTransformerBlock)]
    assert len(found) == len(blocks) > 0
    for name, module in zip(blocks, found, strict=True):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 16, module.last.weight.shape[1], generator=generator)
        context = torch.randn(2, 5, module.attentions[1].products[1].sizes[0], generator=generator)
        for given in (context, None) if context.shape[2] == x.shape[2] else (context,):
            expected = plain.get_submodule(name)(x, encoder_hidden_states=given)
            difference = module(x, encoder_hidden_states=given) - expected
            assert difference.square().mean() < 1e-5 * expected.square().mean(), name


def test_feed_forwards_of_which_a_layer_is_no_integer_one_stay(
    transformer: tuple[nn.Module, Rows],
) -> None:
    unet = copy.deepcopy(transformer[0])
    layers = [layer for name, layer in quantized_layers(unet).items() if name.endswith("ff.net.2")]
    layers[0].input_quantizer = None
    fused = [module for module in lower_for_cuda(unet).modules() if isinstance(module, IntegerFeedForward)]
    assert len(fused) == len(layers) - 1 > 0
