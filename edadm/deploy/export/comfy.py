"""Quantized checkpoints in ComfyUI's layout: linear layers in int8 under CompVis' names.

A layer L has `L.weight` (int8), `L.weight_scale` (fp32, a factor for each row) and `L.comfy_quant`, JSON in
the bytes of a uint8 tensor; the weight is the product of the first two. So `comfy/quant_ops.py` and
`comfy/ops.py` of ComfyUI (commit 0271a469) and `tensor/int8.py` of comfy-kitchen (0.2.40). A layer's input is
quantized there while it runs, each row on a symmetric 8-bit grid of its own, unless the JSON asks for a
product in floating point; the layout has no place for zero points, grids of activations, smoothing, or
convolutions.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from edadm.artifacts import writing
from edadm.console import say
from edadm.deploy.checkpoint import load_quantized, read_metadata
from edadm.deploy.int_weight import signed_weight
from edadm.errors import EdadmError
from edadm.networks.layouts.compvis_unet import from_diffusers, to_diffusers
from edadm.networks.settings.architecture import Architecture
from edadm.networks.weights.packed.comfy import INT8
from edadm.nn.insert import quantized_layers
from edadm.nn.layers import QuantizedLayer, QuantizedLinear
from edadm.nn.transformed import TransformedLinear

_PREFIX = "model.diffusion_model."


def to_comfy(path: Path, output: Path, dtype: torch.dtype) -> None:
    """A file that ComfyUI loads as a diffusion model.

    Weights of linear layers keep their values exactly, and so their learned rounding: codes less their zero
    points fit into int8, 4-bit ones, too; a row that reaches 128 is negated, and so is its scale. Where a
    layer is smoothed, rotated or has a branch, the weight that takes the plain input is rounded again to the
    nearest of 8 bits. Convolutions have the values of their codes in `dtype`. Grids of activations and of
    attention are left out.

    Args:
        path: the quantized checkpoint.
        output: is written.
        dtype: of what is not int8.

    Raises:
        CheckpointError: as `edadm.load`.
        EdadmError: ComfyUI has no such network.
    """
    architecture = Architecture.model_validate(read_metadata(path)["architecture"])
    unet = load_quantized(path)
    layers = quantized_layers(unet)
    tensors = {name: tensor.detach().to(dtype) for name, tensor in unet.named_parameters()}
    tensors |= {f"{name}.weight": layer.unsmoothed_weight.to(dtype) for name, layer in layers.items()}
    integers = {
        name: layer
        for name, layer in layers.items()
        if isinstance(layer, QuantizedLinear) and len(layer.channel_sizes) == 1
    }
    for name, layer in integers.items():
        tensors |= {f"{name}.{kind}": tensor for kind, tensor in _integers(layer).items()}
    named = _renamed(tensors, architecture, path)
    with writing(output) as partial:
        save_file({name: tensor.contiguous() for name, tensor in named.items()}, partial, {"format": "pt"})
    again = sum(_is_smoothed(layer) for layer in integers.values())
    kind = str(dtype).removeprefix("torch.")
    say(
        f"{output}: {len(integers)} of {len(layers)} quantized layers are int8; {again} of these were "
        "smoothed, rotated or beside a branch and are rounded to 8 bits anew, the others keep their values; "
        f"ComfyUI has no place for codes of the other layers, whose values are {kind}, and for grids of "
        "activations and attention"
    )


def _is_smoothed(layer: QuantizedLayer) -> bool:
    """Whether a layer's input is divided by anything, or rotated, or goes through a branch as well."""
    if isinstance(layer, TransformedLinear) and (layer.rotation or layer.has_branch):
        return True
    return layer.smooth is not None and bool((layer.smooth != 1).any())


def _integers(layer: QuantizedLayer) -> dict[str, Tensor]:
    """What the layout has of a layer in the place of its weight."""
    if _is_smoothed(layer):
        weight = layer.unsmoothed_weight.float()
        scale = (weight.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        codes = (weight / scale[:, None]).round().to(torch.int8)
    else:
        (codes,), (scale,) = signed_weight(layer)
    told: dict[str, str | bool] = {"format": INT8}
    if layer.input_quantizer is None:
        told["full_precision_matrix_mult"] = True
    text = json.dumps(told).encode()
    return {
        "weight": codes,
        "weight_scale": scale.reshape(-1, 1),
        "comfy_quant": torch.tensor(list(text), dtype=torch.uint8),
    }


def _renamed(tensors: dict[str, Tensor], architecture: Architecture, path: Path) -> dict[str, Tensor]:
    """The tensors by the names of a whole checkpoint of CompVis.

    Raises:
        EdadmError: that code builds no such network.
    """
    try:
        if architecture.context_channels is None:
            raise ValueError("it is told no text")
        named = from_diffusers(tensors, architecture)
        if to_diffusers(named, architecture).keys() != tensors.keys():
            raise ValueError("its levels have different numbers of blocks")
    except (KeyError, ValueError) as error:
        raise EdadmError(
            f"ComfyUI has no such network as {path} ({error.args[0]}); it takes Stable Diffusion's U-Nets, "
            "so export this one with --format diffusers or onnx"
        ) from None
    return {f"{_PREFIX}{name}": tensor for name, tensor in named.items()}
