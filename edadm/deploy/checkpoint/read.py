"""Reading a quantized checkpoint: a network is rebuilt from its header, and filled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from pydantic import PositiveInt, TypeAdapter, ValidationError
from safetensors import safe_open
from torch import Tensor

from edadm.artifacts import reading
from edadm.deploy.checkpoint.header import Facts, read_metadata
from edadm.deploy.checkpoint.network import described, unquantized_parameters
from edadm.deploy.checkpoint.versions import grids_in, is_damaged, schemes_in
from edadm.deploy.grids import quantizers, refuse, set_grids
from edadm.errors import EdadmError
from edadm.kernels.packing import unpack4
from edadm.networks.family import Network
from edadm.networks.settings.architecture import Architecture
from edadm.networks.weights import CheckpointError
from edadm.nn.insert import quantized_layers
from edadm.nn.sizes import keep_to_size
from edadm.nn.sound import code_flaws, float_flaws
from edadm.quant.scheme import SchemeError

Size = TypeAdapter(PositiveInt)


def load_quantized(path: Path, device: torch.device | str = "cpu") -> Network:
    """Rebuilds the quantized U-Net (simulated integer arithmetic) from its file alone, in inference mode.

    Raises:
        CheckpointError: damaged, foreign or newer file, or missing tensors.
    """
    facts = read_metadata(path)
    unet = _skeleton(facts, path)
    with reading(path, refusal=CheckpointError), safe_open(path, "pt") as file:
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    try:
        set_grids(unet, grids_in(facts, tensors, quantizers(unet)))
        _fill(unet, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the tensor {error}; copy it again or make it again") from None
    except ValueError as error:
        raise CheckpointError(
            f"{path} does not fit the network it describes: {error}; copy it again or make it again"
        ) from None
    if is_damaged(facts, tensors):
        raise CheckpointError(
            f"{path} is damaged (its content has another digest than it says); copy it again or make it again"
        )
    return unet.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


def _skeleton(facts: Facts, path: Path) -> Network:
    """The network that the facts describe, with memory but without values."""
    try:
        architecture = Architecture.model_validate(facts["architecture"])
        unet = described(architecture, partial(schemes_in, facts))
        if (size := facts.get("calibrated_at")) is not None:
            keep_to_size(unet, *map(Size.validate_python, size))
    except SchemeError as error:
        raise CheckpointError(
            f"{path} says schemes that this edadm does not compute ({error}); "
            "upgrade edadm, or copy it again or make it again"
        ) from None
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
    return unet._apply(_unfilled)


def _unfilled(tensor: Tensor) -> Tensor:
    """Memory for what is on `meta`, as from `to_empty`, for which torch imports sympy."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)


def _fill(unet: Network, tensors: Mapping[str, Tensor]) -> None:
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
    unquantized = unquantized_parameters(unet, layers)
    for name, parameter in unquantized.items():
        parameter.data = _fitting(tensors, name, parameter.shape, torch.float32)
    refuse(code_flaws(unet), "make the file again")
    refuse(float_flaws(unquantized.items()), "make the file again")


def _fitting(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    tensor = tensors[name]
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ValueError(f"'{name}' is {tuple(tensor.shape)} {tensor.dtype}, not {tuple(shape)} {dtype}")
    return tensor
