"""The quantized checkpoint: one safetensors file with integer codes, grids and everything needed to rebuild the U-Net."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from edadm.artifacts import writing
from edadm.config.schema import Bits, UNetArchitecture
from edadm.kernels.packing import pack4, unpack4
from edadm.models.skips import shortcut_splits
from edadm.models.unet import UNet, build_unet
from edadm.models.weights import CheckpointError
from edadm.nn.quantizer import Quantizer
from edadm.nn.surgery import quantize_unet, quantized_layers

FORMAT_VERSION = 1


def quantized_copy(unet: nn.Module, bits: Bits) -> nn.Module:
    """A quantizing copy of a float U-Net that shares its parameters until codes are folded into them."""
    shared: dict[int, Any] = {id(parameter): parameter for parameter in unet.parameters()}
    copied = copy.deepcopy(unet, shared)
    quantize_unet(copied, bits, shortcut_splits(copied))
    return copied


def _quantizers(unet: nn.Module) -> dict[str, Quantizer]:
    return {name: module for name, module in unet.named_modules() if isinstance(module, Quantizer)}


def grids(unet: nn.Module) -> dict[str, Tensor]:
    """Scales (fp32) and zero points (uint8) of all quantizers by name."""
    tensors = {}
    for name, quantizer in _quantizers(unet).items():
        tensors[f"{name}.scale"] = quantizer.scale.float().contiguous()
        tensors[f"{name}.zero_point"] = quantizer.zero_point.to(torch.uint8).contiguous()
    return tensors


def set_grids(unet: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts the grids of a file into a quantized U-Net.

    Raises:
        CheckpointError: a grid is missing or of another shape.
    """
    for name, quantizer in _quantizers(unet).items():
        try:
            quantizer.set_grid(tensors[f"{name}.scale"], tensors[f"{name}.zero_point"].float())
        except KeyError as error:
            raise CheckpointError(f"the file lacks the grid {error}; it was made for other bits or another network") from None
        except ValueError as error:
            raise CheckpointError(f"the grid of {name} does not fit ({error}); it was made for other bits or another network") from None


def save_quantized(unet: nn.Module, path: Path, architecture: UNetArchitecture, bits: Bits, provenance: Mapping[str, Any]) -> None:
    """Writes a U-Net whose weights are all folded codes; the same model gives the same bytes.

    Tensors: per layer `NAME.codes` (uint8; packed by `kernels.packing.pack4` where the weight has 4 bits or fewer) and
    `NAME.bias`; grids as in `grids`; all other parameters under their own names.
    """
    tensors = grids(unet)
    layers = quantized_layers(unet)
    for name, layer in layers.items():
        assert layer.codes is not None, f"{name} has no codes"
        codes = layer.codes.contiguous()
        tensors[f"{name}.codes"] = pack4(codes) if layer.weight_quantizer.bits <= 4 else codes
    quantized_weights = {f"{name}.weight" for name in layers}
    tensors |= {name: p.detach().contiguous() for name, p in unet.named_parameters() if name not in quantized_weights}
    metadata = {
        "format_version": FORMAT_VERSION,
        "architecture": architecture.model_dump(mode="json"),
        "bits": bits.model_dump(mode="json"),
        "provenance": dict(provenance),
    }
    with writing(path) as partial:
        save_file({name: tensors[name].cpu() for name in sorted(tensors)}, partial, {"edadm": json.dumps(metadata, sort_keys=True)})


def _facts(path: Path) -> dict[str, Any]:
    """What this package wrote into a file's metadata; files with float weights have facts, too, but no `format_version`."""
    try:
        with safe_open(path, "pt") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {}).get("edadm", "{}"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy it again or make it again") from None
    return facts


def read_metadata(path: Path) -> dict[str, Any]:
    """The description inside a quantized checkpoint.

    Raises:
        CheckpointError: damaged, of another program, or of a newer format.
    """
    facts = _facts(path)
    if "format_version" not in facts:
        raise CheckpointError(f"{path} is no quantized checkpoint of edadm; make one with `edadm reconstruct`")
    if facts["format_version"] > FORMAT_VERSION:
        raise CheckpointError(f"{path} has format {facts['format_version']}, this edadm reads up to {FORMAT_VERSION}; upgrade edadm")
    return facts


def load_quantized(path: Path, device: torch.device | str = "cpu") -> UNet:
    """Rebuilds the quantized U-Net (simulated integer arithmetic) from its file alone, in inference mode.

    Raises:
        CheckpointError: damaged, foreign or newer file, or missing tensors.
    """
    facts = read_metadata(path)
    bits = Bits.model_validate(facts["bits"])
    with torch.device("meta"):
        unet = build_unet(UNetArchitecture.model_validate(facts["architecture"]))
        quantize_unet(unet, bits, shortcut_splits(unet))
    unet.to_empty(device="cpu")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a safetensors file is no dict
    set_grids(unet, tensors)
    layers = quantized_layers(unet)
    try:
        for name, layer in layers.items():
            codes = tensors[f"{name}.codes"]
            layer.set_codes(unpack4(codes, tuple(layer.weight.shape)) if layer.weight_quantizer.bits <= 4 else codes)
        for name, parameter in unet.named_parameters():
            if name.rpartition(".")[0] not in layers or name.endswith(".bias"):
                parameter.data = tensors[name]
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the tensor {error}; copy it again or make it again") from None
    return unet.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


def is_quantized(path: Path) -> bool:
    """Whether a safetensors file is a quantized checkpoint of this package."""
    return "format_version" in _facts(path)
