"""LoRAs beside the layers of a quantized network, by the calls with which diffusers switches them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.unet_loader_utils import _maybe_expand_lora_scales as by_block

from edadm.config.backends import DEFAULT
from edadm.deploy.checkpoint import Facts
from edadm.deploy.fuse.network import is_fused
from edadm.errors import EdadmError
from edadm.networks.build import build_network
from edadm.networks.layouts.lora import UNET, Change, candidates, flat
from edadm.networks.lora import low_rank_changes, read_lora
from edadm.networks.settings.architecture import Architecture
from edadm.nn.low_rank import Branch, LowRank, beside, layers_like, low_ranks, without_branches

WEIGHTS = "pytorch_lora_weights.safetensors"  # diffusers' name for the file in a folder
_HOW = {"cache_dir", "force_download", "proxies", "local_files_only", "token", "revision", "use_safetensors"}


class Adapters:
    """A mixin of networks beside whose layers there may be low-rank branches in floating point.

    A layer's output is that of its codes and grid plus what the branches make of its input. Nothing is
    merged, so that unloading leaves the network as it was.

    Attributes:
        peft_config: what was loaded, by name, where diffusers' pipelines look for it.
    """

    facts: Facts
    backend: str

    def load_lora_adapter(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike[str] | Mapping[str, Any],
        prefix: str | None = "unet",
        hotswap: bool = False,
        adapter_name: str | None = None,
        network_alphas: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        weight_name: str | None = None,
        subfolder: str | None = None,
        low_cpu_mem_usage: bool = False,
        _pipeline: Any = None,
        **loading: Any,
    ) -> None:
        """Puts a LoRA beside the layers that it changes, as the only one that acts.

        Args:
            pretrained_model_name_or_path_or_dict: its tensors, as `pipeline.load_lora_weights` gives them, or
                its file, or a folder with it.
            prefix: of the names of those that are for this network; without effect, since all known forms
                are told apart.
            hotswap: must be false.
            adapter_name: by which it is switched; `default_0`, ... if None.
            network_alphas: by names of layers.
            metadata: what peft says of it.
            weight_name: of a file in a folder.
            subfolder: of it.
            low_cpu_mem_usage: without effect.
            _pipeline: without effect.
            loading: how a file would be fetched; without effect.

        Raises:
            EdadmError: it is no plain LoRA of this network; the backend has no place for it; the name is
                taken.
        """
        if hotswap or loading.keys() - _HOW:
            other = "hotswap" if hotswap else min(loading.keys() - _HOW)
            raise EdadmError(f"a LoRA beside a quantized network is not loaded with {other}; leave it out")
        network: Any = self
        unnamed = (f"default_{number}" for number in range(len(self._loaded()) + 1))
        name = adapter_name or next(name for name in unnamed if name not in self._loaded())
        if name in self._loaded():
            raise EdadmError(
                f"there is a LoRA '{name}' already; take another adapter_name, or delete that one"
            )
        source = pretrained_model_name_or_path_or_dict
        if isinstance(source, Mapping):
            alphas = {key: torch.as_tensor(value) for key, value in (network_alphas or {}).items()}
            changes = low_rank_changes(dict(source) | alphas, metadata or {})
        else:
            changes = read_lora(_file(Path(source) / (subfolder or ""), weight_name))
        own = {layer: change for (part, layer), change in changes.items() if part == UNET}
        if not own:
            return  # of other parts of a pipeline alone
        self._refuse_elsewhere()
        made = _branches(own, Architecture.model_validate(self.facts["architecture"]))
        _answer_to_peft()
        is_on = all(branches.is_on for branches in low_ranks(network).values())
        for layer, branch in made.items():
            beside(network.get_submodule(layer)).add(name, branch)
        network.peft_config = self._loaded() | {name: dict(metadata or {})}
        network._hf_peft_config_loaded = True
        self._switch(is_on)
        self.set_adapters(name)

    def _loaded(self) -> dict[str, Any]:
        found: dict[str, Any] = getattr(self, "peft_config", {})
        return found

    def _refuse_elsewhere(self) -> None:
        """Refuses backends whose layers are not called one by one.

        Raises:
            EdadmError: there are such.
        """
        network: Any = self
        if is_fused(network) or not hasattr(network, "down_blocks"):
            raise EdadmError(
                f"a network with backend '{self.backend}' computes several layers at once, and has no place "
                f"for a LoRA beside one; load it with backend='{DEFAULT}', or merge the LoRA before "
                "quantizing, with `edadm convert-checkpoint --lora FILE:0.8`"
            )

    def set_adapters(self, adapter_names: str | Sequence[str], weights: Any = None) -> None:
        """Lets these LoRAs act, and no others.

        Args:
            adapter_names: of them.
            weights: a strength of all, or of each; of blocks by name, as diffusers takes them; 1 if None.

        Raises:
            EdadmError: there is none of a name, or not a strength for each, or one that is no finite number.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self._refuse_unknown(names)
        strengths = list(weights) if isinstance(weights, list | tuple) else [weights] * len(names)
        if len(strengths) != len(names):
            raise EdadmError(
                f"{len(strengths)} weights do not fit {len(names)} LoRAs; give each one, or one to all"
            )
        network: Any = self
        all_branches = low_ranks(network)
        try:
            if any(isinstance(strength, Mapping) for strength in strengths):
                strengths = by_block(self, [1.0 if s is None else s for s in strengths])
            of_layers = [[_strength(strength, layer) for strength in strengths] for layer in all_branches]
        except (AttributeError, TypeError, ValueError) as error:
            raise EdadmError(
                f"{weights!r} are no strengths of LoRAs ({error}); give numbers such as 0.8, or those of "
                "blocks as in {'down': 0.8, 'up': {'block_1': 0.5}}"
            ) from None
        for branches, numbers in zip(all_branches.values(), of_layers, strict=True):
            told = zip(names, numbers, strict=True)
            branches.strengths = {name: number for name, number in told if name in branches.names}

    set_adapter = set_adapters

    def active_adapters(self) -> list[str]:
        """The names of the LoRAs that act, in the order in which they were loaded."""
        network: Any = self
        active = {name for branches in low_ranks(network).values() for name in branches.active_adapters}
        return [name for name in self._loaded() if name in active]

    def disable_adapters(self) -> None:
        """Lets no LoRA act until `enable_adapters`."""
        self._switch(False)

    def enable_adapters(self) -> None:
        """Lets those that were set act again."""
        self._switch(True)

    disable_lora, enable_lora = disable_adapters, enable_adapters

    def _switch(self, on: bool) -> None:
        network: Any = self
        for branches in low_ranks(network).values():
            branches.is_on = on

    def delete_adapters(self, adapter_names: str | Sequence[str]) -> None:
        """Removes LoRAs; where none is left, the network is as it was.

        Raises:
            EdadmError: there is none of a name.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self._refuse_unknown(names)
        network: Any = self
        for layer, branches in low_ranks(network).items():
            for name in names:
                branches.remove(name)
            if not branches.names:
                without_branches(network.get_submodule(layer))
        network.peft_config = {name: said for name, said in self._loaded().items() if name not in names}
        if not network.peft_config:
            del network.peft_config
            network._hf_peft_config_loaded = False

    def unload_lora(self) -> None:
        """Removes all LoRAs."""
        if self._loaded():
            self.delete_adapters(list(self._loaded()))

    def fuse_lora(self, *unused: Any, **also_unused: Any) -> None:
        """Refuses to merge a LoRA into codes, which have no room for it.

        Raises:
            EdadmError: always.
        """
        raise EdadmError(
            "a LoRA stays beside the codes of a quantized network; leave the call out, or merge it before "
            "quantizing, with `edadm convert-checkpoint --lora FILE:0.8`"
        )

    def unfuse_lora(self) -> None:
        """Changes nothing: none is ever merged."""

    def add_adapter(self, *unused: Any, **also_unused: Any) -> None:
        """Refuses an adapter that is to be trained, and other ways to load or save one.

        Raises:
            EdadmError: always.
        """
        raise EdadmError(
            "beside a quantized network LoRAs are loaded, with load_lora_adapter or load_lora_weights, and "
            "not trained or saved; train one beside the network in full precision"
        )

    load_attn_procs = save_attn_procs = save_lora_adapter = enable_lora_hotswap = add_adapter

    def _refuse_unknown(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._loaded():
                known = ", ".join(f"'{other}'" for other in self._loaded()) or "none"
                raise EdadmError(f"there is no LoRA '{name}' beside this network; loaded: {known}")


def _file(path: Path, name: str | None) -> Path:
    return path / (name or WEIGHTS) if path.is_dir() else path


def _branches(changes: Mapping[str, tuple[Change, float]], architecture: Architecture) -> dict[str, Branch]:
    """The branches that changes are, by the layer.

    Raises:
        EdadmError: they are of another network.
    """
    with torch.device("meta"):
        like = layers_like(build_network(architecture))
    known = {flat(layer): layer for layer in like}
    made: dict[str, Branch] = {}
    for written, (change, scale) in changes.items():
        layer = _layer(written, change, known, architecture)
        made[layer] = Branch(like[layer], change.numbers, scale)
    return made


def _layer(written: str, change: Change, known: Mapping[str, str], architecture: Architecture) -> str:
    """The layer that a change is of.

    Raises:
        EdadmError: the network has none.
    """
    for candidate in candidates(written, architecture):
        if candidate in known:
            return known[candidate]
    raise EdadmError(
        f"the LoRA changes '{change.name}', which this network has not; load one of the same base model"
    )


def _strength(strength: Any, layer: str) -> float:
    """The strength in one layer, of blocks where a block's name is part of the layer's.

    Raises:
        TypeError, ValueError: it is no finite number.
    """
    if isinstance(strength, Mapping):
        strength = next((value for block, value in strength.items() if block in layer), 1.0)
    number = 1.0 if strength is None else float(strength)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number


def _answer_to_peft() -> None:
    """Lets diffusers find the branches by the class that it asks for, where peft is installed."""
    with suppress(ImportError):
        from peft.tuners.tuners_utils import BaseTunerLayer

        BaseTunerLayer.register(LowRank)
