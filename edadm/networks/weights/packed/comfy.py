"""Layers in ComfyUI's int8 layout, read as the floating-point weights that their codes stand for.

A layer L of it has `L.weight` (int8, rows x channels), `L.weight_scale` (one factor, or one for each row) and
`L.comfy_quant`, JSON in the bytes of a uint8 tensor; the weight is the product of the first two. With
`convrot`, what is stored is the weight with every group of `convrot_groupsize` input channels rotated by a
Hadamard matrix, which is its own inverse. So ComfyUI's `comfy/ops.py` (commit 0271a469) and comfy-kitchen's
`tensor/int8.py` and `tensor/int8_utils.py` (0.2.40).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.networks.weights.errors import quoted, unreadable
from edadm.networks.weights.packed.stored import Container, Stored

INT8 = "int8_tensorwise"
_MARK = ".comfy_quant"
_LONGEST = 4096  # bytes that say how a layer is quantized
_GROUP = 256
_POWERS = [4**exponent for exponent in range(8)]
_ROTATION = ((1, 1, 1, -1), (1, 1, -1, 1), (1, -1, 1, 1), (-1, 1, 1, 1))


def dequantized(container: Container, path: Path) -> Container:
    """A file of weights with every int8 layer of ComfyUI's as one in fp32; another file as it is.

    Files with layers in another of ComfyUI's formats stay as they are, too: what they are is said elsewhere.

    Raises:
        CheckpointError: a layer lacks a tensor, or one has an impossible size.
    """
    content = container.content
    assert isinstance(content, dict)
    layers = [name.removesuffix(_MARK) for name in content if name.endswith(_MARK)]
    told = {layer: _told(content[layer + _MARK]) for layer in layers}
    if not layers or any(facts.get("format") != INT8 for facts in told.values()):
        return container
    plain = dict(content)
    for layer, facts in told.items():
        weight, scale = content.get(f"{layer}.weight"), content.get(f"{layer}.weight_scale")
        if weight is None or scale is None or (problem := _problem(weight, scale, _group(facts))):
            lacks = problem if weight and scale else "its codes or their scale are missing"
            raise unreadable(path, f"{quoted(layer)} is no int8 layer of ComfyUI's: {lacks}")
        load = partial(_values, weight, scale, _group(facts))
        plain[f"{layer}.weight"] = Stored("float32", weight.shape, load)
        for name in (f"{layer}.weight_scale", f"{layer}.input_scale", layer + _MARK):
            plain.pop(name, None)
    kind = f"{container.kind} with {len(layers)} int8 layers of ComfyUI's"
    taken = "were taken as the values of their codes"
    note = f"{path}: {len(layers)} layers are int8 (ComfyUI's layout), and {taken}"
    return replace(container, kind=kind, content=plain, note=note)


def _told(stored: Stored) -> Mapping[str, Any]:
    """What a layer's JSON says; nothing if it is none."""
    if stored.dtype != "uint8" or len(stored.shape) != 1 or stored.shape[0] > _LONGEST:
        return {}
    try:
        facts = json.loads(bytes(stored.load().tolist()))
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _group(facts: Mapping[str, Any]) -> int:
    """Channels that are rotated together; 1 where none are, 0 where a size is no power of 4."""
    inner = facts.get("params")
    told = (inner if isinstance(inner, dict) else {}) | dict(facts)
    size = told.get("convrot_groupsize", _GROUP) if told.get("convrot") else 1
    return size if isinstance(size, int) and size in _POWERS else 0


def _problem(weight: Stored, scale: Stored, group: int) -> str:
    """What is wrong with a layer, if something is."""
    if weight.dtype != "int8" or len(weight.shape) != 2:
        return f"its codes are {weight.dtype} of {weight.shape}"
    if scale.shape not in ((), (1,), (1, 1), weight.shape[:1], (weight.shape[0], 1)):
        return f"its scale of {scale.shape} does not fit codes of {weight.shape}"
    if not group or weight.shape[1] % group:
        return f"its {weight.shape[1]} channels are rotated in groups that do not fit"
    return ""


def _values(weight: Stored, scale: Stored, group: int) -> Float[Tensor, "rows channels"]:
    """The weight in fp32."""
    factors = scale.load().float().reshape(-1, 1)
    values = weight.load().float() * factors
    if group == 1:
        return values
    rotation = torch.ones(1, 1)
    while len(rotation) < group:
        rotation = torch.kron(rotation, torch.tensor(_ROTATION) / 2)
    return (values.unflatten(1, (-1, group)) @ rotation).flatten(1)
