"""Folders of quantized networks, by the keywords that diffusers' pipelines and trainers say."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edadm.config.backends import DEFAULT
from edadm.config.schema import Bits
from edadm.console import say
from edadm.deploy.checkpoint import Facts, save_quantized
from edadm.errors import EdadmError
from edadm.networks.settings.architecture import Architecture
from edadm.networks.weights import CheckpointError
from edadm.nn.insert import quantized_layers

WEIGHTS = "diffusion_pytorch_model.safetensors"  # the name that diffusers gives the weights of every model
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "": 1}
_HOW = {  # how weights in floating point would be fetched and read, which changes nothing that is read
    *("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision", "mirror"),
    *("low_cpu_mem_usage", "use_safetensors", "max_memory", "offload_folder", "offload_state_dict"),
    *("disable_mmap", "ignore_mismatched_sizes", "flashpack_kwargs"),
}


class Folders:
    """A mixin that writes integer codes, and reads them, in place of diffusers' ways with float weights."""

    facts: Facts
    backend: str
    was_cast: bool

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        save_function: Any = None,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        use_flashpack: bool = False,
    ) -> None:
        """Writes `config.json` and the packed checkpoint into a folder.

        The checkpoint has the same bytes as the file the network came from.

        Args:
            save_directory: the folder.
            is_main_process: another one writes nothing.
            save_function: must be None.
            safe_serialization: if false, which a pipeline tells all of its parts, safetensors is written all
                the same, and a line says so.
            variant: is put into the file's name, as diffusers does.
            max_shard_size: in bytes, or as in "5GB"; the file must be smaller.
            push_to_hub: must be false.
            use_flashpack: must be false.

        Raises:
            EdadmError: the network no longer holds all that a checkpoint does; another file is asked for.
        """
        _refuse_other_files(save_function, push_to_hub, use_flashpack)
        if self.backend != DEFAULT:
            raise EdadmError(
                f"a network with backend '{self.backend}' cannot be saved; load it with backend='{DEFAULT}' "
                "for that"
            )
        if self.was_cast:
            raise EdadmError(
                "a network cast to half precision has lost bits of its biases; load it with "
                "dtype=torch.float32 to save it"
            )
        _refuse_edited(self)
        if max_shard_size is not None and (size := _size(self)) > _bytes(max_shard_size):
            raise EdadmError(
                f"a quantized network is one file, here of {size} bytes, more than max_shard_size; leave "
                "that out"
            )
        folder = Path(save_directory)
        if folder.is_file():
            raise EdadmError(f"{folder} is a file; name a folder")
        if not is_main_process:
            return
        self.save_config(folder)  # type: ignore[attr-defined]
        architecture, bits = (
            Architecture.model_validate(self.facts["architecture"]),
            Bits.model_validate(self.facts["bits"]),
        )
        path = folder / _named(variant)
        if not safe_serialization:
            say(f"{path}: a quantized network has one kind of file, so this is safetensors, too")
        told = self.facts["provenance"], self.facts.get("calibrated_at")
        save_quantized(self, path, architecture, bits, *told)  # type: ignore[arg-type]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        subfolder: str | None = None,
        backend: str = DEFAULT,
        torch_dtype: torch.dtype | str | None = None,
        dtype: torch.dtype | str | None = None,
        device_map: object = None,
        variant: str | None = None,
        output_loading_info: bool = False,
        **loading: Any,
    ) -> Any:
        """Loads such a folder on this machine; see `edadm.load`.

        Args:
            pretrained_model_name_or_path: the folder.
            subfolder: of it, where the network lies.
            backend: as in `edadm.load`.
            torch_dtype: of what is not quantized; fp32 if None.
            dtype: the same by its newer name, which counts.
            device_map: a device, or one for all of the network as in `{"": "cuda"}`.
            variant: what stands in the file's name.
            output_loading_info: gives what diffusers gives with it, too: that nothing is missing.
            loading: how floating-point weights would be read, as diffusers' pipelines say to each of their
                parts; without effect.

        Raises:
            EdadmError: as `edadm.load`; several devices; a keyword that asks for something else.
        """
        from edadm.deploy.load import dtype_named, load  # which needs these classes

        _refuse_others(loading)
        folder = Path(pretrained_model_name_or_path) / (subfolder or "")
        if not folder.is_dir():
            raise CheckpointError(f"there is no folder {folder} on this machine; download it first")
        path = folder / _named(variant) if variant else folder
        if not path.exists():
            raise CheckpointError(f"the folder {folder} holds no {path.name}; leave out variant='{variant}'")
        network = load(path, one_device(device_map), backend, dtype_named(dtype or torch_dtype))
        if not output_loading_info:
            return network
        lists: dict[str, list[str]] = {
            name: [] for name in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
        }
        return network, lists

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **others: Any) -> Any:
        """Refuses to make a network of random weights in the place of a quantized one.

        Where diffusers measures networks that have no memory (`device_map="balanced"`), it is given one.

        Raises:
            EdadmError: there would be weights.
        """
        if not nn.Linear(1, 1).weight.is_meta:
            raise EdadmError(
                "a configuration has no codes and grids, of which a quantized network consists; load its "
                "folder with from_pretrained"
            )
        return super().from_config(config, return_unused_kwargs, **others)  # type: ignore[misc]


def _named(variant: str | None) -> str:
    """The file of weights with a variant in its name."""
    return WEIGHTS if not variant else WEIGHTS.replace(".", f".{variant}.")


def _refuse_other_files(save_function: Any, push_to_hub: bool, use_flashpack: bool) -> None:
    """Refuses to write what is no safetensors file on this machine."""
    if save_function is not None or use_flashpack:
        raise EdadmError(
            "a quantized network is saved as safetensors alone; leave out save_function and use_flashpack"
        )
    if push_to_hub:
        raise EdadmError(
            "nothing is sent to a hub from here; save the folder, and upload it with `hf upload`"
        )


def _refuse_edited(network: Any) -> None:
    """Refuses to write codes and grids that a network does not compute with."""
    for name, layer in quantized_layers(network).items():
        codes = layer.codes
        if codes is not None and not torch.equal(layer.weight, layer.weight_quantizer.values(codes)):
            raise EdadmError(
                f"{name} computes with another weight than that of its codes and grid, which were changed in "
                "place; change copies of what state_dict gives, and give them to load_state_dict"
            )


def _refuse_others(loading: Mapping[str, Any]) -> None:
    """Refuses keywords that ask for something else than how a file is read."""
    for name, value in loading.items():
        if name not in _HOW and value not in (None, False):
            raise EdadmError(f"a quantized network is not loaded with {name}; leave it out")


def one_device(device_map: object) -> torch.device | str | None:
    """The one device of a map.

    Raises:
        EdadmError: it has several, or leaves the choice open.
    """
    one = device_map.get("") if isinstance(device_map, Mapping) and len(device_map) == 1 else device_map
    if isinstance(one, int):
        return f"cuda:{one}"
    if (one is None and device_map is None) or isinstance(one, torch.device):
        return one
    if not isinstance(one, str) or one in ("auto", "balanced", "balanced_low_0", "sequential"):
        raise EdadmError(
            "a quantized U-Net cannot be spread over devices; leave out device_map, and call .to(device)"
        )
    return one


def _bytes(size: int | str) -> int:
    """A size in bytes, that may be written with a unit.

    Raises:
        EdadmError: it is none.
    """
    found = re.fullmatch(r"(\d+)\s*([A-Z]*)", str(size).upper())
    if not found or found[2] not in _UNITS:
        raise EdadmError(f"max_shard_size is no size: {size!r}; write it as in '5GB'")
    return int(found[1]) * _UNITS[found[2]]


def _size(network: Any) -> int:
    """The bytes that codes and parameters take in a file, about all there is in it."""
    layers = quantized_layers(network).values()
    codes = sum(layer.weight.numel() * (0.5 if layer.weight_quantizer.bits <= 4 else 1) for layer in layers)
    weights = sum(layer.weight.numel() for layer in layers)
    return int(codes) + 4 * (sum(parameter.numel() for parameter in network.parameters()) - weights)
