"""Smoothed networks in the integers of CPUs and GPUs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from edadm.deploy.backends.cuda_int8 import lower_for_cuda
from edadm.deploy.backends.onednn import lower_for_cpu
from edadm.deploy.fuse.attention import IntegerFeedForward
from edadm.deploy.fuse.cpu import CpuLayer, CpuLinear
from edadm.deploy.fuse.layers import IntegerConv2d
from edadm.deploy.fuse.transformer import IntegerTransformer, IntegerTransformerBlock
from edadm.deploy.fuse.unet import IntegerResnetBlock
from edadm.errors import EdadmError
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.quant import ranges

from ...networks.families import calibrated
from ..conftest import SMOOTH, SMOOTHED, Family

Lowered = tuple[nn.Module, nn.Module]


def inputs_of(unet: nn.Module, rows: Rows) -> dict[str, Tensor]:
    """The input of every smoothed layer, by name."""
    found: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, given, n=name: found.update({n: given[0]}))
        for name, layer in quantized_layers(unet).items()
        if layer.smooth is not None
    ]
    network_call(unet, rows)
    for handle in handles:
        handle.remove()
    return found


def _of_rows(x: Tensor) -> Tensor:
    """The input of a linear layer as that of a convolution of points."""
    return x.reshape(1, -1, x.shape[-1]).transpose(1, 2)[..., None]


@torch.no_grad()
def test_integers_on_a_cpu_are_the_codes_of_the_simulation(smoothed: Family) -> None:
    _, unet, rows = smoothed
    lowered = lower_for_cpu(unet)
    for name, x in inputs_of(unet, rows).items():
        layer, made = unet.get_submodule(name), lowered.get_submodule(name)
        assert isinstance(made, CpuLayer)
        zero_point = layer.input_quantizer.grid(x.dim())[1]
        codes = layer.input_quantizer.codes(x / layer._by_channel(layer.smooth)) - zero_point
        given, expected = (_of_rows(y) if isinstance(made, CpuLinear) else y for y in (x, codes))
        parts = zip(made.segments, given.split(made.sizes, 1), strict=True)
        found = torch.cat([segment.quantize_input(part) for segment, part in parts], 1)
        assert torch.equal(found, expected), name
        torch.testing.assert_close(made(x), layer(x), rtol=1e-4, atol=1e-4)
        if not isinstance(made, CpuLinear):
            assert torch.equal(made(x.clone(), in_place=True), made(x)), name


@pytest.fixture(scope="module")
def of_gpu(smoothed: Family) -> Lowered:
    """The network in the integers of a GPU, layer by layer and with fused blocks."""
    return tuple(lower_for_cuda(smoothed[1], torch.float32, fuse=fuse) for fuse in (False, True))


@torch.no_grad()
def test_integer_layers_of_a_gpu_agree_with_their_simulation(smoothed: Family, of_gpu: Lowered) -> None:
    (_, unet, rows), (plain, _) = smoothed, of_gpu
    for name, x in inputs_of(unet, rows).items():
        layer, made = unet.get_submodule(name), plain.get_submodule(name)
        assert isinstance(made, IntegerConv2d)
        expected = layer(x)
        assert (made(x) - expected).abs().max() <= 1e-5 * expected.abs().max(), name


@torch.no_grad()
def test_residual_blocks_divide_where_they_quantize(of_gpu: Lowered) -> None:
    plain, fused = of_gpu
    blocks = {n: module for n, module in fused.named_modules() if isinstance(module, IntegerResnetBlock)}
    assert len(blocks) == len([module for module in plain.modules() if isinstance(module, ResnetBlock2D)])
    generator, seen = torch.Generator().manual_seed(0), set()
    for name, module in blocks.items():
        block: Any = plain.get_submodule(name)
        x = 3 * torch.randn(2, block.in_channels, 4, 4, generator=generator)
        time = torch.randn(2, sum(block.time_emb_proj.sizes), generator=generator)
        shortcut: Any = module.conv_shortcut
        parts = (x,) if shortcut is None else x.split(shortcut.sizes, 1)  # an input and the skip, or one
        expected = block(x.contiguous(memory_format=torch.channels_last), time)
        found = module(parts[0], time, *parts[1:])
        assert (found - expected).square().mean() < 1e-5 * expected.square().mean(), name
        assert module.conv1.smooth is not None
        assert module.conv2.smooth is not None
        assert shortcut is None or len(module.shortcut_grids.smooth) == x.shape[1]
        seen.add(len(parts))
    assert seen == {1, 2}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device on this machine")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_fused_blocks_by_kernels_agree_with_their_meaning(dtype: torch.dtype, of_gpu: Lowered) -> None:
    by_meaning = copy.deepcopy(of_gpu[1]).to(dtype)
    by_kernels = copy.deepcopy(by_meaning).cuda()
    generator, bound = torch.Generator().manual_seed(0), 1e-4 if dtype == torch.float32 else 1e-3
    for name, module in by_meaning.named_modules():
        kernels: Any = by_kernels.get_submodule(name)
        given: tuple[Tensor, ...]
        if isinstance(module, IntegerResnetBlock):
            x = torch.randn(8, module.affine1.weight.shape[1], 16, 16, generator=generator)
            parts = (x,) if module.conv_shortcut is None else x.split(module.conv_shortcut.sizes, 1)
            given = parts[0], torch.randn(8, sum(module.time_emb_proj.sizes), generator=generator), *parts[1:]
        elif isinstance(module, IntegerFeedForward):
            given = (torch.randn(8, 64, module.first.sizes[0], generator=generator),)
        else:
            continue
        expected = module(*(part.to(dtype) for part in given)).float()
        found = kernels(*(part.to("cuda", dtype) for part in given)).float().cpu()
        assert (found - expected).square().mean() < bound * expected.square().mean(), name


@torch.no_grad()
def test_factors_move_into_the_norms_and_gates_of_fused_blocks(
    of_gpu: Lowered,
) -> None:
    plain, fused = of_gpu
    kinds = (IntegerTransformer, IntegerTransformerBlock, IntegerFeedForward)
    assert {type(module) for module in fused.modules()} >= set(kinds)
    blocks = {n: module for n, module in fused.named_modules() if isinstance(module, IntegerTransformer)}
    for name, module in blocks.items():
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, module.affine.weight.shape[1], 4, 4, generator=generator)
        block: Any = module.transformer_blocks[0]
        context = torch.randn(2, 5, block.attentions[1].products[1].sizes[0], generator=generator)
        expected = plain.get_submodule(name)(x, encoder_hidden_states=context, return_dict=False)[0]
        found = module(x, encoder_hidden_states=context, return_dict=False)[0]
        assert (found - expected).square().mean() < 1e-5 * (expected - x).square().mean(), name
        keys = block.attentions[1].products[1].segments[0]
        assert keys.smooth is not None  # the context's own
        with pytest.raises(EdadmError, match="this attention is over a context; give encoder_hidden_states"):
            block(x.flatten(2).transpose(1, 2))


@torch.no_grad()
def test_w8a8_of_a_network_with_outlier_channels_errs_less_and_its_integers_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 10)
    errors, differences = [], []
    for strength in (None, 0.5):
        bits = SMOOTH.model_copy(update={"weights": 8, "smoothing": strength})
        unet, quantized, rows = calibrated("ldm4_bedroom", bits, outliers=32)
        expected, found = network_call(unet, rows), network_call(quantized, rows)
        integers = network_call(lower_for_cpu(quantized), rows)
        power = expected.square().mean()
        errors.append((found - expected).square().mean() / power)
        differences.append((integers - found).square().mean() / power)
    assert errors[1] < 0.8 * errors[0]  # 0.040 and 0.064 of the output's power
    assert max(differences) < 0.01  # a sum that is rounded otherwise makes a code its neighbour


def test_layers_of_one_norm_with_other_factors_are_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 10)
    bits = SMOOTH.model_copy(update={"smoothing": None, "smoothing_layers": {"*attn1.to_q": 0.5}})
    _, unet, rows = calibrated(SMOOTHED, bits, outliers=8)
    fused = lower_for_cuda(unet, torch.float32)
    assert not [module for module in fused.modules() if isinstance(module, IntegerTransformerBlock)]
    assert [module for module in fused.modules() if isinstance(module, IntegerResnetBlock)]
    for name, quantizer in activation_quantizers(unet).items():
        quantizer.enabled = "processor" not in name  # integers on a GPU have no grids there
    with torch.no_grad():
        expected, found = network_call(unet, rows), network_call(fused, rows)
    for quantizer in activation_quantizers(unet).values():
        quantizer.enabled = True
    assert (found - expected).square().mean() < 0.01 * expected.square().mean()
