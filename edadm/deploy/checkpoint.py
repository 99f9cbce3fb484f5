"""The quantized checkpoint: one safetensors file with integer codes, grids and everything needed to rebuild the U-Net.

`docs/checkpoint_format.md` describes it for readers in other programs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from edadm.artifacts import writing
from edadm.config.schema import Bits
from edadm.deploy.grid_packing import compact, expand
from edadm.deploy.grids import grids, quantizers, refuse, set_grids
from edadm.errors import EdadmError
from edadm.kernels.packing import pack4, unpack4
from edadm.networks.families import family_of
from edadm.networks.settings.architecture import UNetArchitecture
from edadm.networks.site import sites_of
from edadm.networks.unet.base import UNet
from edadm.networks.unet.build import build_unet
from edadm.networks.weights import CheckpointError
from edadm.nn.insert import quantize_network, quantized_layers
from edadm.nn.layers import QuantizedLayer
from edadm.nn.sound import code_flaws, float_flaws

FORMAT_VERSION = (
    2  # 1 had a scale and a zero point under each quantizer's name, and no digest; it is still read
)
Facts = dict[str, Any]


def save_quantized(
    unet: nn.Module, path: Path, architecture: UNetArchitecture, bits: Bits, provenance: Mapping[str, Any]
) -> None:
    """Writes a U-Net whose weights are all folded codes; the same model gives the same bytes.

    Tensors: per layer `NAME.codes` (uint8; packed by `kernels.packing.pack4` where the weight has 4 bits or
    fewer) and
    `NAME.bias`; grids as in `deploy.grid_packing`; all other parameters under their own names. The tables
    `weights` and `activations` of the metadata are for readers in other programs; this one knows the network.

    Raises:
        EdadmError: the network lacks quantizers, or holds numbers that no file may hold; nothing is written.
    """
    layers = quantized_layers(unet)
    if absent := sorted(quantizers(_described(architecture, bits)).keys() - quantizers(unet).keys()):
        raise EdadmError(
            f"the network has lost {len(absent)} of its grids, such as {absent[0]}; load it again, and save that"
        )
    unquantized = _unquantized(unet, layers)
    refuse(code_flaws(unet), "nothing was written; quantize the network again")
    refuse(
        float_flaws(unquantized.items()),
        "nothing was written; convert the checkpoint again, and look for such numbers in it",
    )
    tensors = compact(grids(unet), quantizers(unet))
    for name, layer in layers.items():
        codes = layer.codes.contiguous()  # type: ignore[union-attr]
        tensors[f"{name}.codes"] = pack4(codes) if layer.weight_quantizer.bits <= 4 else codes
    tensors |= {name: parameter.detach().float().contiguous() for name, parameter in unquantized.items()}
    tensors = {name: tensors[name].cpu() for name in sorted(tensors)}
    facts = {
        "format_version": FORMAT_VERSION,
        "architecture": architecture.model_dump(mode="json"),
        "bits": bits.model_dump(mode="json"),
        "provenance": dict(provenance),
        "weights": {
            name: [
                layer.weight_quantizer.bits,
                list(layer.weight.shape),
                list(layer.weight_quantizer.segments),
            ]
            for name, layer in layers.items()
        },
        "activations": {
            name: [q.bits, list(q.segments)] for name, q in quantizers(unet).items() if q.rows is None
        },
    }
    facts["sha256"] = digest(tensors, facts)
    with writing(path) as partial:
        save_file(tensors, partial, {"edadm": _compact_json(facts)})


def _unquantized(unet: nn.Module, layers: Mapping[str, QuantizedLayer]) -> dict[str, nn.Parameter]:
    """The parameters that a file holds as they are: biases, norms, layers left in floating point."""
    quantized = {f"{name}.weight" for name in layers}
    return {name: parameter for name, parameter in unet.named_parameters() if name not in quantized}


def digest(tensors: Mapping[str, Tensor], facts: Facts) -> str:
    """SHA-256 of a file's meaning: its facts but `sha256` as sorted JSON, then each tensor's name, type, shape and bytes."""
    sha256 = hashlib.sha256(
        _compact_json({key: value for key, value in facts.items() if key != "sha256"}).encode()
    )
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha256.update(
            _compact_json([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]).encode()
        )
        sha256.update(tensor.flatten().view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def _compact_json(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _facts(path: Path) -> Facts:
    """What this package wrote into a file's metadata; files with float weights have facts, too, but no `format_version`."""
    if not path.is_file():
        raise CheckpointError(
            f"there is no file {path}; name a quantized checkpoint, as `edadm reconstruct` makes it"
        )
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("edadm", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy it again or make it again") from None
    return facts if isinstance(facts, dict) else {}


def read_metadata(path: Path) -> Facts:
    """The description inside a quantized checkpoint.

    Raises:
        CheckpointError: damaged, of another program, or of a newer format.
    """
    facts = _facts(path)
    version = facts.get("format_version")
    if not isinstance(version, int):
        raise CheckpointError(
            f"{path} is no quantized checkpoint of edadm; make one with `edadm reconstruct`"
        )
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {version}, this edadm reads up to {FORMAT_VERSION}; upgrade edadm"
        )
    return facts


def load_quantized(path: Path, device: torch.device | str = "cpu") -> UNet:
    """Rebuilds the quantized U-Net (simulated integer arithmetic) from its file alone, in inference mode.

    Raises:
        CheckpointError: damaged, foreign or newer file, or missing tensors.
    """
    facts = read_metadata(path)
    unet = _skeleton(facts, path)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a safetensors file is no dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy it again or make it again") from None
    try:
        set_grids(unet, expand(tensors, quantizers(unet)) if facts["format_version"] > 1 else tensors)
        _fill(unet, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the tensor {error}; copy it again or make it again") from None
    except ValueError as error:
        raise CheckpointError(
            f"{path} does not fit the network it describes: {error}; copy it again or make it again"
        ) from None
    if facts["format_version"] > 1 and digest(tensors, facts) != facts.get("sha256"):
        raise CheckpointError(
            f"{path} is damaged (its content has another digest than it says); copy it again or make it again"
        )
    return unet.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


def _described(architecture: UNetArchitecture, bits: Bits) -> UNet:
    """A quantized network without memory."""
    with torch.device("meta"):
        unet = build_unet(architecture)
        quantize_network(unet, bits, sites_of(unet, family_of(unet).concatenations(unet)))
    return unet


def _skeleton(facts: Facts, path: Path) -> UNet:
    """The network that the facts describe, with memory but without values."""
    try:
        unet = _described(
            UNetArchitecture.model_validate(facts["architecture"]), Bits.model_validate(facts["bits"])
        )
    except (
        ValidationError,
        EdadmError,
        KeyError,
        TypeError,
        ValueError,
        ArithmeticError,
        IndexError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path} describes no network that can be built ({reason}); copy it again or make it again"
        ) from None
    return unet.to_empty(device="cpu")


def _fill(unet: UNet, tensors: Mapping[str, Tensor]) -> None:
    """Puts codes, and what is not quantized, into a network whose grids are set.

    Raises:
        KeyError: a tensor is missing; its name is the argument.
        ValueError: a tensor has another shape or type than the network's.
        CheckpointError: a code or a number that no file may hold.
    """
    layers = quantized_layers(unet)
    for name, layer in layers.items():
        shape, packed = layer.weight.shape, layer.weight_quantizer.bits <= 4
        codes = _fitting(
            tensors, f"{name}.codes", (-(-shape.numel() // 2),) if packed else shape, torch.uint8
        )
        layer.set_codes(unpack4(codes, tuple(shape)) if packed else codes)
    unquantized = _unquantized(unet, layers)
    for name, parameter in unquantized.items():
        parameter.data = _fitting(tensors, name, parameter.shape, torch.float32)
    refuse(code_flaws(unet), "make the file again")
    refuse(float_flaws(unquantized.items()), "make the file again")


def _fitting(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    tensor = tensors[name]
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ValueError(f"'{name}' is {tuple(tensor.shape)} {tensor.dtype}, not {tuple(shape)} {dtype}")
    return tensor


def is_quantized(path: Path) -> bool:
    """Whether a safetensors file is a quantized checkpoint of this package."""
    return "format_version" in _facts(path)
