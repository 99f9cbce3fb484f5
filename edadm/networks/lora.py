"""LoRAs merged into a network in full precision, before it is quantized."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.artifacts import reading
from edadm.config.schema import Model
from edadm.console import say
from edadm.networks.layouts.lora import SECOND_TEXT, TEXT, UNET, Change, candidates, changes_in, flat
from edadm.networks.layouts.numbers import as_fp32
from edadm.networks.weights import CheckpointError
from edadm.networks.weights.packed.stored import Container
from edadm.networks.weights.reading import open_container

METADATA = "lora_adapter_metadata"  # diffusers' name of what peft knew, in a file's header
CONFIG = "adapter_config.json"  # where peft writes the same beside its file
_WHERE = {"unet": (UNET,), "condition": (TEXT, SECOND_TEXT)}  # what a part of a model is to a file
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_SAID = {UNET: "unet", TEXT: "text_encoder", SECOND_TEXT: "text_encoder_2"}  # how metadata call it


@dataclass(frozen=True)
class Lora:
    """A LoRA file, and by what its changes are multiplied.

    Attributes:
        path: of the file.
        strength: 1 as it was trained.
    """

    path: Path
    strength: float = 1.0

    @classmethod
    def of(cls, text: str) -> Lora:
        """From `FILE` or `FILE:STRENGTH`.

        Raises:
            CheckpointError: there is no such file.
        """
        file, _, number = text.rpartition(":")
        is_number = bool(file) and _NUMBER.fullmatch(number) is not None
        lora = cls(Path(file), float(number)) if is_number else cls(Path(text))
        if not lora.path.is_file():
            raise CheckpointError(f"there is no file {lora.path}; name a LoRA as FILE or FILE:STRENGTH")
        return lora


def loras_for(part: str, texts: Sequence[str]) -> list[Lora]:
    """The LoRAs that are to be merged into a part of a model.

    Raises:
        CheckpointError: there is no such file; a part that no LoRA changes.
    """
    if texts and part not in _WHERE:
        raise CheckpointError(f"a LoRA changes a U-Net or text encoders, not the {part}; leave --lora out")
    return [Lora.of(text) for text in texts]


def merged(state: Mapping[str, Tensor], loras: Sequence[Lora], model: Model, part: str) -> dict[str, Tensor]:
    """A part's weights with the changes of all files added, one after the other.

    Args:
        state: of the part, from `edadm.networks.convert.convert_checkpoint`; left as it is.
        loras: which files.
        model: the preset.
        part: `unet` or `condition`.

    Raises:
        CheckpointError: a file is damaged, no plain LoRA, or of another network.
    """
    found = dict(state)
    for lora in loras:
        changes, scale_of = _read(lora.path)
        here = {place: change for place, change in changes.items() if place[0] in _WHERE[part]}
        if not here:
            raise CheckpointError(f"{lora.path} changes nothing of the {part}; leave it out for this part")
        for place, change in here.items():
            name = _name(found, place, model, lora.path, change)
            scale = lora.strength * _scaled(scale_of, place[0], change, lora.path)
            added = _product(change, found[name], lora.path) * scale
            found[name] = (found[name].double() + added).float()
        say(f"{lora.path}: {len(here)} layers of the {part} changed, times {lora.strength:g}")
        if others := changes.keys() - here.keys():
            kinds = " and ".join(sorted({_SAID[kind] for kind, _ in others}))
            say(f"{lora.path}: it changes {kinds}, too; convert that part with --lora as well")
    return as_fp32(found, loras[-1].path) if loras else found


def low_rank_changes(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> dict[tuple[str, str], tuple[Change, float]]:
    """The changes that the tensors of a LoRA say, with the scale of each, by part and layer.

    Args:
        tensors: factors and alphas, by names of any known form.
        metadata: what peft said of them, by diffusers' names.

    Raises:
        CheckpointError: no plain LoRA.
    """
    where = Path("the LoRA")
    changes = _changes(tensors, where, "load a plain LoRA")
    scale_of = _scales({part: _plain(said, where) for part, said in _by_part(metadata).items()})
    return {place: (change, _scaled(scale_of, place[0], change, where)) for place, change in changes.items()}


def read_lora(path: Path) -> dict[tuple[str, str], tuple[Change, float]]:
    """The same of a file.

    Raises:
        CheckpointError: there is none; damaged, or no plain LoRA.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; name the file of a LoRA, or its folder")
    changes, scale_of = _read(path)
    return {place: (change, _scaled(scale_of, place[0], change, path)) for place, change in changes.items()}


def _read(path: Path) -> tuple[dict[tuple[str, str], Change], Callable[[str, Change], float]]:
    """The changes in a file, and the scale of each by its part.

    Raises:
        CheckpointError: damaged, or no plain LoRA.
    """
    container = open_container(path)
    tensors = {name: stored.load() for name, stored in _tensors(container.content, path)}
    said = _metadata(path, container)
    fix = "merge it with the program that made it, and convert the result"
    return _changes(tensors, path, fix), _scales(said)


def _changes(tensors: Mapping[str, Tensor], path: Path, fix: str) -> dict[tuple[str, str], Change]:
    """The changes that tensors say, of finite numbers.

    Raises:
        CheckpointError: there are none, or no plain LoRA; ends with the fix.
    """
    alphas = {name: tensor for name, tensor in tensors.items() if name.endswith(".alpha")}
    numbers = as_fp32({name: tensor for name, tensor in tensors.items() if name not in alphas}, path)
    if not numbers:
        raise CheckpointError(f"{path} holds no tensors of a LoRA; name another file")
    try:
        return changes_in(numbers | alphas)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; {fix}") from None


def _scaled(scale_of: Callable[[str, Change], float], part: str, change: Change, path: Path) -> float:
    """The scale of a change.

    Raises:
        CheckpointError: what the file says of it is no number, or no pattern.
    """
    try:
        return scale_of(part, change)
    except (TypeError, ValueError, AttributeError, ZeroDivisionError, re.error) as error:
        raise CheckpointError(
            f"{path}: what it says of the scale of '{change.name}' makes no sense ({error}); copy it again"
        ) from None


def _tensors(content: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """What a file stores by name.

    Raises:
        CheckpointError: it stores something else.
    """
    if not isinstance(content, dict) or not all(hasattr(stored, "load") for stored in content.values()):
        raise CheckpointError(f"{path} holds other things than the tensors of a LoRA; name another file")
    yield from content.items()


def _scales(said: Mapping[str, dict[str, Any]]) -> Callable[[str, Change], float]:
    """By what a change is multiplied, from its alpha and from what was said of its part."""

    def scale(part: str, change: Change) -> float:
        rank = change.numbers["down"].shape[0]
        own = said.get(_SAID[part], said.get("", {}))
        alpha = change.alpha
        if alpha is None:
            module = change.name.removeprefix(f"{_SAID[part]}.")
            patterns = own.get("alpha_pattern") or {}
            alpha = next(
                (value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", module)),
                own.get("lora_alpha", rank),
            )
        return float(alpha) / (rank**0.5 if own.get("use_rslora") else rank)

    return scale


def _metadata(path: Path, container: Container) -> dict[str, dict[str, Any]]:
    """What peft knew when a file was written, by part; `""` stands for all of the file.

    Raises:
        CheckpointError: peft's settings are missing, or say what is no plain LoRA.
    """
    names: Any = container.content
    if any(name.startswith("base_model.model.") for name in names):
        beside = path.with_name(CONFIG)
        if not beside.is_file():
            raise CheckpointError(f"{path} needs the {CONFIG} that peft wrote beside it, for its alpha")
        with reading(beside, "copy it again", what="the settings of a LoRA"):
            text = beside.read_text(encoding="utf-8")
        return {"": _plain(_parsed(text, beside), path)}
    found = _by_part(_parsed(container.metadata.get(METADATA, "{}"), path))
    return {part: _plain(settings, path) for part, settings in found.items()}


def _by_part(metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings of each part, or of `""`, all of them, by their own names."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in metadata.items():
        part, _, setting = name.partition(".")
        known = part in _SAID.values()  # else a U-Net's own `save_lora_adapter` wrote the file
        found.setdefault(part if known else "", {})[setting if known else name] = value
    return found


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: what it says of its LoRA is no JSON ({error}); copy it again"
        ) from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: what it says of its LoRA is no table of settings; copy it again")
    return found


def _plain(settings: dict[str, Any], path: Path) -> dict[str, Any]:
    if settings.get("use_dora") or settings.get("peft_type", "LORA") != "LORA":
        raise CheckpointError(
            f"{path} is no plain LoRA but {'DoRA' if settings.get('use_dora') else settings['peft_type']}; "
            "merge it with peft, and convert the result"
        )
    return settings


def _name(
    state: Mapping[str, Tensor], place: tuple[str, str], model: Model, path: Path, change: Change
) -> str:
    """The weight that a change is for.

    Raises:
        CheckpointError: the network has none of this name.
    """
    part, layer = place
    known = {flat(name.removesuffix(".weight")): name for name in state if name.endswith(".weight")}
    prefixes = {UNET: ("",), TEXT: ("first_", ""), SECOND_TEXT: ("second_",)}[part]
    own = layer, layer.removeprefix("text_model_")  # which the module of some transformers leaves out
    names = candidates(layer, model.architecture) if part == UNET else own
    for candidate in names:
        for prefix in prefixes:
            if (name := known.get(f"{prefix}{candidate}")) is not None:
                return name
    raise CheckpointError(
        f"{path} changes '{change.name}', which this network has not; name a LoRA of the same base model"
    )


def _product(change: Change, weight: Tensor, path: Path) -> Float[Tensor, "..."]:
    """The product of a change's factors in fp64, in the shape of the weight.

    Raises:
        CheckpointError: it has another.
    """
    down, up = (change.numbers[role].double() for role in ("down", "up"))
    try:
        if (mid := change.numbers.get("mid")) is not None:
            added = torch.einsum("or,rshw,si->oihw", up.flatten(1), mid.double(), down.flatten(1))
        else:
            added = up.flatten(1) @ down.flatten(1)
        return added.reshape(weight.shape)
    except RuntimeError:
        sizes = " and ".join(str(tuple(change.numbers[role].shape)) for role in ("down", "up"))
        raise CheckpointError(
            f"{path}: '{change.name}' of {sizes} does not fit a weight of {tuple(weight.shape)}; name a LoRA "
            "of the same base model"
        ) from None
