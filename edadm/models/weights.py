"""How a checkpoint is read without trusting it, and compared with the network it should fit."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from edadm.errors import EdadmError


class CheckpointError(EdadmError):
    """A checkpoint that cannot be used, with a sentence that names the fix."""


class _Inert:
    """Stands for any training-time object inside a checkpoint; making one makes a dictionary, which takes what it is given.

    (The restricted unpickler sets items and attributes of ordered dictionaries, but not of their subclasses.)
    """

    def __new__(cls, *args: object, **kwargs: object) -> Any:
        return OrderedDict()


# Lightning checkpoints carry objects of these packages beside the weights. The unpickler gets the stand-in for them, whatever
# their names; it imports nothing and calls nothing but the stand-in.
_TRAINING_PACKAGES = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "numpy.", "ldm.", "collections.", "typing.")


def _load_without_executing(path: Path) -> Any:
    """Content of a torch file; unknown objects of `_TRAINING_PACKAGES` become inert, all others are refused."""
    zipped = zipfile.is_zipfile(path)
    unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else ()
    names = [name for name in unknown if name.startswith(_TRAINING_PACKAGES)]
    with torch.serialization.safe_globals([(_Inert, name) for name in names]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _reason(error: Exception) -> str:
    """Half a sentence; PyTorch's own words for a refused pickle advise to execute it, so they are not passed on."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is no pickle, or one that holds more than tensors"
    return (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch checkpoint by name, on the CPU; no pickle is executed.

    A list (the layout of ermongroup/ddim's training checkpoints) stands for its first entry, and a `state_dict` or
    `model` entry (Lightning's, CompVis') for its content.

    Raises:
        CheckpointError: damaged, or holding anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = _load_without_executing(path)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, zipfile.BadZipFile, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({_reason(error)}); is it complete, and from a source you trust?"
        ) from None
    if isinstance(content, list | tuple) and content:
        content = content[0]
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
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
            raise CheckpointError(
                f"{path}: '{name}' has shape {found}, the preset's network {tuple(tensor.shape)}; mend `architecture`, or name another file"
            )
    if unknown := sorted(set(state) - set(expected)):
        raise CheckpointError(f"{path} holds '{unknown[0]}', which the preset's network lacks; mend `architecture`, or name another file")
