"""Sets of tensors by name inside dictionaries and objects as they were saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edadm.networks.weights.errors import CheckpointError, clean_line, quoted
from edadm.networks.weights.packed.pickles import Name, Thing
from edadm.networks.weights.packed.stored import Stored

State = dict[str, Stored]
_MOST_MODULES = 100_000  # a module may stand at several places, so that few can make endlessly many
_DEEPEST_MODULE = 64
_PLAIN = {
    "_rebuild_sparse_tensor": "tensor.to_dense()",
    "_rebuild_qtensor": "tensor.dequantize()",
    "_rebuild_nested_tensor": "tensor.to_padded_tensor(0)",
}


@dataclass(frozen=True)
class Weights:
    """What a file holds of a network.

    Args:
        raw: the tensors as training left them; empty if there are only averages.
        averaged: their averages; empty if there are none.
        place: where the averages lie, for sentences.
        nameless: why averages that are there cannot be taken, if so.
    """

    raw: State
    averaged: State
    place: str = ""
    nameless: str = ""


def entries_of(value: object) -> dict[Any, Any]:
    """What a dictionary, or an object that is filled like one, holds."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Thing):
        state = value.state[0] if isinstance(value.state, tuple) and value.state else value.state
        return value.entries or (state if isinstance(state, dict) else {})
    return {}


def named_tensors(entries: Mapping[Any, Any]) -> State:
    """The tensors that lie in a dictionary itself, if they have names."""
    tensors = {name: value for name, value in entries.items() if isinstance(value, Stored)}
    return {name: value for name, value in tensors.items() if isinstance(name, str)}


def tensors_of(entries: Mapping[Any, Any], path: Path) -> State:
    """The tensors of a state dict; numbers and texts beside them are left out.

    Raises:
        CheckpointError: something else stands in a tensor's place.
    """
    for name, value in entries.items():
        if isinstance(value, Stored) and not isinstance(name, str):
            kind = f"{type(name).__name__} ({quoted(name)})"
            raise CheckpointError(f"{path} names its tensors by {kind}, so it is no state of a network")
        is_weight = isinstance(name, str) and "." in name and not name.endswith("_extra_state")
        if is_weight and isinstance(value, Thing | Name | dict | list | tuple):
            raise CheckpointError(_sentence_on(name, value, path))
    return named_tensors(entries)


def _sentence_on(name: str, value: Any, path: Path) -> str:
    """Why what stands in a tensor's place is not read, and how a clean file is made."""
    what = str(value) if isinstance(value, Thing | Name) else f"a {type(value).__name__}"
    line = clean_line(_PLAIN.get(what.rpartition(".")[2], "tensor.detach()"))
    told = f"it holds {quoted(name)} as {quoted(what)}, not as a plain tensor"
    told = f"{told}, and nothing is executed to make it one"
    return f"{path} cannot be read as a checkpoint: {told}; write {line}"


def module_state(thing: Thing) -> State:
    """The state dict of a pickled `nn.Module`, from the dictionaries that it is filled with."""
    state: State = {}
    waiting = [("", thing, 0)]
    for _ in range(_MOST_MODULES):
        if not waiting:
            break
        prefix, module, depth = waiting.pop()
        entries = entries_of(module)
        own = entries_of(entries.get("_parameters")) | entries_of(entries.get("_buffers"))
        left_out = entries.get("_non_persistent_buffers_set")
        skipped = [name for name in left_out if isinstance(name, str)] if isinstance(left_out, list) else []
        own = {name: tensor for name, tensor in own.items() if name not in skipped}
        state |= {f"{prefix}{name}": tensor for name, tensor in named_tensors(own).items()}
        inner = entries_of(entries.get("_modules")) if depth < _DEEPEST_MODULE else {}
        below = [(name, child) for name, child in inner.items() if isinstance(child, Thing)]
        waiting += [(f"{prefix}{name}.", child, depth + 1) for name, child in below[::-1]]
    return state
