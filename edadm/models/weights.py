"""How a checkpoint is read without trusting it, and compared with the network it should fit."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from edadm.errors import EdadmError


class CheckpointError(EdadmError):
    """A checkpoint that cannot be used, with a sentence that names the fix."""


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch checkpoint by name, on the CPU; no pickle is executed.

    A list (the layout of ermongroup/ddim's training checkpoints) stands for its first entry, and a `state_dict` or
    `model` entry for its content.

    Raises:
        CheckpointError: damaged, or holding anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({reason}); is it complete, and from a source you trust?") from None
    if isinstance(content, list | tuple) and content:
        content = content[0]
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds no plain dictionary of tensors; export the U-Net's state dict and point to that")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def check_fit(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    """Compares names and shapes with those of the network.

    Raises:
        CheckpointError: names the first tensor that differs and both shapes.
    """
    for name, tensor in expected.items():
        if name not in state:
            raise CheckpointError(f"{path} lacks the tensor '{name}' {tuple(tensor.shape)}; does `architecture` fit this checkpoint?")
        if state[name].shape != tensor.shape:
            found = tuple(state[name].shape)
            raise CheckpointError(f"{path}: '{name}' has shape {found}, the preset's network {tuple(tensor.shape)}; mend `architecture`")
    if unknown := sorted(set(state) - set(expected)):
        raise CheckpointError(f"{path} holds '{unknown[0]}', which the preset's network lacks; mend `architecture`")
