"""What a file is, from its first bytes, its names and its shapes; no tensor is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from edadm.config.files.first_bytes import foreign
from edadm.networks.weights.containers import Weights, weights_in
from edadm.networks.weights.errors import CheckpointError, quoted
from edadm.networks.weights.known.kinds import Kind, Shapes, kind_of
from edadm.networks.weights.packed.pickles import Thing
from edadm.networks.weights.packed.stored import Container, Stored

_MANY = 200_000
_OPTIMIZER = Kind(
    "optimizer",
    "the state of a training (its optimizer), without the network's weights",
    "name the file with the weights",
)
_HYPERNETWORK = Kind(
    "hypernetwork",
    "tensors that are named by numbers (a hypernetwork), not a U-Net",
    "name the checkpoint of the U-Net",
)

_OURS = Kind("edadm", "a quantized checkpoint of edadm", "name the float checkpoint that it was made from")
_EXCLUDE = {  # (part that is wanted, part that is there)
    *(("unet", found) for found in ("autoencoder", "condition", "other")),
    *(("autoencoder", "condition"), ("condition", "autoencoder")),
}


@dataclass(frozen=True)
class Identity:
    """What a file is.

    Args:
        kind: in words, with what its owner can do; None if it is like nothing known.
        packed: how it is packed, in words.
        tensors: sizes of all its tensors by name, averaged and other ones.
        numbers: how many numbers they hold.
        dtypes: how many tensors there are of each type.
        averaged: where averaged weights lie in it; empty if there are none.
        problem: why its weights cannot be taken apart from what is around them, if so.
    """

    kind: Kind | None
    packed: str
    tensors: Shapes
    numbers: int
    dtypes: Mapping[str, int]
    averaged: str = ""
    problem: str = ""

    @property
    def first(self) -> str:
        """What the first names look like, for a file that is like nothing known."""
        first = list(self.tensors.items())[:3]
        return ", ".join(f"{quoted(name)} {tuple(size)}" for name, size in first)


def foreign_file(path: Path) -> CheckpointError | None:
    """The error for a file that is neither a safetensors nor a PyTorch file, if its bytes say what it is.

    Raises:
        OSError: it cannot be opened.
    """
    found = foreign(path)
    if found is None:
        return None
    what, advice = found
    return CheckpointError(f"{path} cannot be read as a checkpoint: it is {what}; {advice}")


def identify(container: Container, path: Path) -> Identity:
    """What an opened file is."""
    flat, structure = _flat(container.content)
    problem, weights = "", Weights({}, {})
    try:
        weights = weights_in(container.content, path)
    except CheckpointError as error:
        problem = str(error)
    tensors = weights.raw or weights.averaged
    shapes = {name: stored.shape for name, stored in (tensors or flat).items()}
    kind = kind_of(shapes) or kind_of({name: stored.shape for name, stored in flat.items()} | structure)
    if "format_version" in container.metadata.get("edadm", ""):
        kind = _OURS
    if kind is None and _is_training_state(container.content):
        kind = _OPTIMIZER
    content = container.content
    if kind is None and isinstance(content, dict) and any(isinstance(key, int) for key in content):
        kind = _HYPERNETWORK
    averaged = {f"(averaged) {name}": stored for name, stored in weights.averaged.items()}
    everything = weights.raw | averaged or flat
    return Identity(
        kind,
        container.kind,
        {name: stored.shape for name, stored in everything.items()},
        sum(math.prod(stored.shape) for stored in everything.values()),
        Counter(stored.dtype for stored in everything.values()),
        weights.place or weights.nameless,
        problem,
    )


def refuse_useless(container: Container, path: Path) -> None:
    """Refuses a file that is known to be no part of a model.

    Raises:
        CheckpointError: says what it is, and what its owner can do.
    """
    kind = identify(container, path).kind
    if kind and not kind.part:
        raise CheckpointError(f"{path} is {kind.what}; {kind.advice}")


def refuse_other(state: Mapping[str, Tensor], part: str, path: Path) -> None:
    """Refuses tensors that are no part of a model, another part, or a U-Net that no sampler here can run.

    Args:
        state: tensors by name.
        part: `unet`, `autoencoder` or `condition`.
        path: of their file.

    Raises:
        CheckpointError: says what they are, and what their owner can do.
    """
    kind = kind_of(_shapes(state))
    if kind and (not kind.part or (part, kind.part) in _EXCLUDE):
        raise CheckpointError(f"{path} is {kind.what}; {kind.advice}")


def said_of(state: Mapping[str, Tensor], part: str) -> str:
    """What tensors are that do not fit a part of a model, as a sentence's end; empty if they look like it.

    Args:
        state: tensors by name.
        part: `unet`, `autoencoder` or `condition`.
    """
    kind = kind_of(_shapes(state))
    if kind is None:
        names = ", ".join(quoted(name) for name in list(state)[:3]) or "none"
        return f"; its first names are {names}, which are of no network known here"
    if kind.part in (part, "all") and not kind.advice:
        return ""
    if kind.part == part and part != "unet":
        return ""
    return f"; it is {kind.what}: {kind.advice or 'name another file'}"


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _flat(content: object) -> tuple[dict[str, Stored], dict[str, tuple[int, ...]]]:
    """All tensors of a container by their own names, and the keys above them, which tell of some kinds."""
    tensors: dict[str, Stored] = {}
    keys: dict[str, tuple[int, ...]] = {}
    waiting: list[tuple[str, Any]] = [("", content)]
    seen: set[int] = set()
    while waiting and len(tensors) < _MANY:
        name, value = waiting.pop()
        if isinstance(value, Stored):
            tensors.setdefault(name, value)
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        entries = value.entries or value.state if isinstance(value, Thing) else value
        below: list[tuple[str, Any]] = []
        if isinstance(entries, dict):
            below = [(_as_name(key), inner) for key, inner in entries.items()]
        elif isinstance(entries, list | tuple):
            below = [(name, inner) for inner in entries]
        if len(keys) < _MANY:
            keys |= {key: () for key, inner in below if key and not isinstance(inner, Stored)}
        waiting += below[::-1]
    return tensors, keys


def _as_name(key: object) -> str:
    if isinstance(key, int) and abs(key) < 1 << 32:
        return str(key)
    return key if isinstance(key, str) else ""


def _is_training_state(content: object) -> bool:
    """Whether what is saved is an optimizer, or a dictionary of what training needs without a network."""
    if not isinstance(content, dict):
        return False
    inside = [content, *(value for value in content.values() if isinstance(value, dict))]
    return any("param_groups" in entries and "state" in entries for entries in inside)
