"""Which files of a folder hold a part's weights, as diffusers and transformers name them."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from edadm.artifacts import reading
from edadm.console import say
from edadm.networks.settings.configs.unet import AVERAGING
from edadm.networks.settings.reading import read_json
from edadm.networks.weights import CheckpointError, read_state
from edadm.networks.weights.containers import Averaged
from edadm.networks.weights.errors import quoted

COMPONENTS = {
    "unet": ("unet", "transformer"),
    "autoencoder": ("vae", "vqvae"),
    "condition": ("text_encoder",),
    "second_condition": ("text_encoder_2",),
}
AVERAGED_FOLDER = "unet_ema"
_OF_DIFFUSERS = "diffusion_pytorch_model"
_STEM = rf"(?P<stem>{_OF_DIFFUSERS}|pytorch_model|model)"
_FILE = re.compile(rf"{_STEM}(?:\.(?P<variant>.+))?\.(?P<suffix>safetensors|bin)")
_INDEX = re.compile(rf"{_FILE.pattern}\.index(?:\.(?P<last>.+))?\.json")
_SHARD = re.compile(r"-\d+-of-\d+")
_HALF = re.compile(r"fp16|bf16|float16|half|fp8|float8")
_RAW = re.compile(r"no[nt]?[_-]?ema")
_AVERAGED = re.compile(r"(?:^|[._-])ema(?:$|[._-])")
_OTHER_WEIGHTS = re.compile(r"(?!.*lora).+\.(?:safetensors|ckpt|pt|pth)")
_LISTED = 8
_USUAL = {
    "unet": "diffusion_pytorch_model.safetensors",
    "autoencoder": "diffusion_pytorch_model.safetensors",
    "condition": "model.safetensors",
    "second_condition": "model.safetensors",
}
_FIXES = {
    "autoencoder": "set autoencoder.checkpoint to the file or folder of a VAE",
    "condition": "set conditioning.checkpoint to the file or folder of a text encoder",
    "second_condition": "set conditioning.checkpoint to a pipeline's folder with both text encoders",
}


@dataclass(frozen=True)
class Weights:
    """The weights of one network.

    Args:
        path: a file, or the index of several.
        averaged: whether they are averaged over training steps; None where no name says so.
    """

    path: Path
    averaged: bool | None = None


def find_weights(path: Path, part: str, wanted: Averaged = "auto") -> Weights:
    """The weights of a part, in a file or in a folder as diffusers and transformers write it.

    Among variants the averaged ones come first as `wanted` says, then full precision, then safetensors.

    Args:
        path: a file, a pipeline's folder, or the folder of the part itself.
        part: `unet`, `autoencoder`, `condition` or `second_condition`.
        wanted: whether averaged weights are asked for; `auto` takes them where names tell of them.

    Raises:
        CheckpointError: the folder holds no weights of the part, or not the averaged ones.
    """
    if not path.is_dir():
        _refuse_one_of_several(path)
        return Weights(path)
    wanted = wanted if part == "unet" else "auto"
    folder, averaged = _component(path, part, wanted)
    sets = _sets(folder)
    if not sets:
        raise CheckpointError(f"{folder} holds no weights; {_what_is_there(folder, part)}")
    _refuse_unknown_variants(folder, sets)
    found = [_with_meaning(weights, averaged) for weights in sets]
    raw_is_named = any(weights.averaged is False for weights in found)
    averaged_is_named = any(weights.averaged for weights in found)
    if averaged is None and (raw_is_named or averaged_is_named):  # the plain name means the other one
        plain = raw_is_named
        found = [Weights(w.path, plain if w.averaged is None else w.averaged) for w in found]
    return _chosen(found, folder, wanted)


def read_weights(path: Path, wanted: Averaged = "auto") -> dict[str, Tensor]:
    """The tensors of a file, or of all the files that an index names.

    Args:
        path: from `find_weights`.
        wanted: whether averaged weights are asked for, of a file that may hold both.

    Raises:
        CheckpointError: damaged or incomplete, or without the averaged weights asked for.
    """
    return _read_shards(path) if path.suffix == ".json" else read_state(path, wanted)


def _refuse_one_of_several(path: Path) -> None:
    if _SHARD.search(path.name) and any(path.parent.glob("*.index*.json")):
        fix = f"point to their index or folder, {path.parent}"
        raise CheckpointError(f"{path} is one of several files that belong together; {fix}")


def _component(path: Path, part: str, wanted: Averaged) -> tuple[Path, bool | None]:
    """The folder of the part, and whether its name or its neighbour's says that its weights are averaged."""
    names = [name for name in COMPONENTS[part] if (path / name).is_dir()]
    if part != "unet":
        return (path / names[0] if names else path), None
    if (path / AVERAGED_FOLDER).is_dir():
        if names and wanted is False:
            return path / names[0], False
        if wanted is not False:
            say(f"{path}: took the averaged weights in {AVERAGED_FOLDER}")
        return path / AVERAGED_FOLDER, True
    if names:
        return path / names[0], _is_average(path / names[0])
    beside = path.resolve().parent / AVERAGED_FOLDER
    if path.resolve().name == AVERAGED_FOLDER or not beside.is_dir():
        return path, True if path.resolve().name == AVERAGED_FOLDER else _is_average(path)
    if wanted != "auto":
        return path, False
    say(f"{path}: took these weights as told; the averaged ones are beside them, in {beside}")
    return path, None


def _is_average(folder: Path) -> bool | None:
    """True where the configuration beside the weights is one that diffusers' `EMAModel` has written."""
    file = folder / "config.json"
    return True if file.is_file() and set(AVERAGING[:4]) <= set(read_json(file)) else None


def _sets(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    """The files and indexes of a folder that hold a network's weights, the best first but for averages."""
    found = []
    for name in _names(folder):
        match = _INDEX.fullmatch(name) or (None if _SHARD.search(name) else _FILE.fullmatch(name))
        if match and (folder / name).is_file():
            found.append((folder / name, match))
    return sorted(found, key=lambda entry: _rank(*entry))


def _refuse_unknown_variants(folder: Path, sets: list[tuple[Path, re.Match[str]]]) -> None:
    """Refuses a folder that holds nothing but variants of which no name tells which is meant."""
    variants = {_variant(match) for _, match in sets}
    if len(variants) > 1 and not any(map(_is_known, variants)):
        names = ", ".join(path.name for path, _ in sets)
        raise CheckpointError(
            f"{folder} holds several variants ({names}) and none without a name; point `checkpoint` to one"
        )


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        told = f"{folder} cannot be read ({error.strerror})"
        raise CheckpointError(f"{told}; let yourself read it, or name another folder") from None


def _variant(match: re.Match[str]) -> str:
    names = match.groupdict()
    return names["variant"] or names.get("last") or ""


def _is_known(variant: str) -> bool:
    return not variant or any(word.search(variant) for word in (_HALF, _RAW, _AVERAGED))


def _rank(path: Path, match: re.Match[str]) -> tuple[bool, bool, bool, int, str]:
    """The place among the sets of a folder.

    Shards come before a whole file, as diffusers takes them, unless some are absent; but for a text
    encoder's, of which transformers takes the whole file.
    """
    variant, before = _variant(match), match["stem"] == _OF_DIFFUSERS
    place = 1 if match.re is not _INDEX else 0 if before and _is_complete(path) else 2
    unknown, half = not _is_known(variant), bool(_HALF.search(variant))
    return (unknown, half, match["suffix"] != "safetensors", place, match.string)


def _is_complete(index: Path) -> bool:
    try:
        _weight_map(index)
    except CheckpointError:
        return False
    return True


def _with_meaning(entry: tuple[Path, re.Match[str]], averaged: bool | None) -> Weights:
    """Files with what their variant says of averages, in a folder whose name may have said it."""
    path, match = entry
    if averaged is not None:
        return Weights(path, averaged)
    if _RAW.search(_variant(match)):
        return Weights(path, False)
    return Weights(path, True if _AVERAGED.search(_variant(match)) else None)


def _chosen(found: list[Weights], folder: Path, wanted: Averaged) -> Weights:
    """The first that is as wanted."""
    names = ", ".join(weights.path.name for weights in found)
    if wanted is True:
        fitting = [weights for weights in found if weights.averaged]
        if not fitting:
            raise CheckpointError(
                f"{folder} does not say that it holds averaged weights (there is {names}); "
                f"point to a folder {AVERAGED_FOLDER}, or set ema: auto to take what is there"
            )
    elif wanted is False:
        fitting = [weights for weights in found if not weights.averaged]
        if not fitting:
            told = f"{folder} holds averaged weights alone ({names})"
            raise CheckpointError(f"{told}; set ema: auto to take them")
    else:
        order = {True: 0, None: 1, False: 2}
        fitting = sorted(found, key=lambda weights: order[weights.averaged])
    first = fitting[0]
    if len({weights.averaged for weights in found}) > 1:
        kind = "averaged" if first.averaged else "raw"
        say(f"{folder}: took {first.path.name}, the {kind} weights, of {names}")
    elif first.averaged is False and wanted == "auto":
        say(f"{folder}: took {first.path.name}, raw weights; there are no averaged ones")
    return first


def _read_shards(index: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index names.

    Raises:
        CheckpointError: the index is none, names files elsewhere, or files and index differ.
    """
    places = _weight_map(index)
    state: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        path = index.parent / file
        shard = read_state(path)
        own = {name for name, place in places.items() if place == file}
        if lost := sorted(own - set(shard)):
            told = f"{path} lacks the tensor {quoted(lost[0])}"
            raise CheckpointError(f"{told}, which {index.name} places there; fetch it again")
        if foreign := sorted(set(shard) - own):
            told = f"{path} holds {quoted(foreign[0])}"
            raise CheckpointError(f"{told}, which {index.name} does not place there; fetch it again")
        state |= shard
    return state


def _weight_map(index: Path) -> dict[str, str]:
    """The file of every tensor, by the tensor's name; all files are beside the index."""
    form = "an index of weights, JSON with a 'weight_map'"
    with reading(index, "name the folder, or fetch it again", CheckpointError, form):
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if not places or not all(isinstance(file, str) for file in places.values()):
            raise ValueError("it names no files")
    for file in sorted(set(places.values())):
        if re.search(r"[/\\]", file) or file in ("", ".", ".."):
            told = f"{index} names the file {quoted(file)} outside its folder"
            raise CheckpointError(f"{told}; weights must be beside their index")
        if not os.path.isfile(index.parent / file):
            told = f"{index.parent} lacks {quoted(file)}, which {index.name} names"
            raise CheckpointError(f"{told}; fetch it, or the folder again")
    return places


def _what_is_there(folder: Path, part: str) -> str:
    """The rest of a sentence: what the folder should have, what it has, and what to point to."""
    names = _names(folder)
    shown = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    there = f"there is {shown}" if names else "it is empty"
    others = "or model.safetensors, .bin, a variant, or shards and their index"
    wanted = f"it should have diffusion_pytorch_model.safetensors ({others})"
    fix = "point `checkpoint` to a pipeline's or a part's folder, or to a file"
    if any(name in names for known in COMPONENTS.values() for name in known):
        own = " or ".join(COMPONENTS[part])
        wanted = f"a pipeline's folder should have a folder {own} with {_USUAL[part]} in it"
        fix = f"{_FIXES.get(part, 'fetch it')}, or name a whole original checkpoint"
    snapshots = sorted(path for path in folder.glob("snapshots/*") if path.is_dir())
    if snapshots:
        fix = f"this is a cache of the Hub, point `checkpoint` to {snapshots[-1]}"
    elif any(_SHARD.search(name) for name in names):
        fix = "the shards' index (.index.json) is missing, fetch it"
    elif files := [name for name in names if _OTHER_WEIGHTS.fullmatch(name) and (folder / name).is_file()]:
        fix = f"point `checkpoint` to one file, such as {folder / files[0]}"
    elif dead := [name for name in names if (folder / name).is_symlink() and not (folder / name).exists()]:
        fix = f"{dead[0]} is a link to nothing, fetch the file again"
    return f"{wanted}, but {there}; {fix}"
