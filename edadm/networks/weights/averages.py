"""Averages of weights over a training: where files keep them, and which weights are taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from edadm.networks.weights.elsewhere import names_averages
from edadm.networks.weights.errors import CheckpointError, quoted
from edadm.networks.weights.packed.pickles import Thing
from edadm.networks.weights.packed.stored import Stored
from edadm.networks.weights.states import State, Weights, entries_of, module_state, tensors_of

Averaged = Literal["auto"] | bool
_INSIDE = (
    *("shadow", "state_dict", "model_state_dict", "ema_state_dict"),
    *("ema_model", "model", "module", "params", "weights"),
)
_LISTS = ("shadow_params", "collected_params")
_WITHOUT_DOTS = "'model_ema'"  # of whole models, whose other parts have no averages
_COUNTERS = {"model_ema.decay", "model_ema.num_updates"}
_DEEPEST = 4


def chosen(weights: Weights, averaged: Averaged, path: Path) -> tuple[State, str]:
    """The tensors that a setting asks for, and a line on them if there are averages.

    Raises:
        CheckpointError: the file lacks what is asked for.
    """
    if averaged is False:
        if not weights.raw:
            alone = f"holds averaged weights alone ({weights.place})"
            raise CheckpointError(f"{path} {alone}; set ema: true or auto")
        return weights.raw, ""
    if weights.nameless:
        instead = "write the averages alone, with names, or set ema: false for the weights as trained"
        raise CheckpointError(f"{path}: {weights.nameless}; {instead}")
    if not weights.averaged:
        if averaged is True:
            instead = "use a file that does, or set ema: auto or false"
            raise CheckpointError(f"{path} holds no averaged weights; {instead}")
        return weights.raw, ""
    return _with_averages(weights, path)


def _with_averages(weights: Weights, path: Path) -> tuple[State, str]:
    """The averages, and of what is not averaged (buffers, frozen parts) the only version there is."""
    if not weights.raw:
        alone = f"it holds averaged weights alone ({weights.place}), and they are taken"
        return weights.averaged, f"{path}: {alone}"
    averaged = renamed(weights)
    lacking = [name for name in weights.raw if name not in averaged]
    modules = {name.rpartition(".")[0] for name in averaged}
    for name in lacking:
        module, _, parameter = name.rpartition(".")
        if parameter in ("weight", "bias") and module in modules:
            which = f"not all averaged weights ({quoted(name)} is absent)"
            raise CheckpointError(f"{path} holds {which}; use one that does, or set ema: false")
    line = f"{path}: averaged weights are taken ({weights.place}); set ema: false for those as trained"
    if not averaged.keys() & weights.raw.keys():
        return averaged, f"{line}, whose names differ"
    if lacking and weights.place != _WITHOUT_DOTS:
        share = f"{len(lacking)} of {len(weights.raw)} tensors"
        line = f"{line}; {share} have no average (first {quoted(lacking[0])}) and stay"
    return weights.raw | averaged, line


def renamed(weights: Weights) -> State:
    """The averages under the names of the weights, which in a whole model begin with the part's name."""
    first = next(iter(weights.averaged))
    if first in weights.raw:
        return weights.averaged
    prefixes = [name.removesuffix(first) for name in weights.raw if name.endswith(f".{first}")]
    for prefix in prefixes:
        named = {f"{prefix}{name}": tensor for name, tensor in weights.averaged.items()}
        if named.keys() <= weights.raw.keys():
            return named
    return weights.averaged


def under_a_key(entries: Mapping[Any, Any], path: Path) -> tuple[State, str, str]:
    """Averages under a key of their own: they, where they are, and why they cannot be taken if so."""
    for key, value in entries.items():
        if isinstance(value, Stored) or not names_averages(key):
            continue
        state, nameless = _inside(value, path)
        if state or nameless:
            return state, quoted(key), f"its averages ({quoted(key)}) {nameless}" if nameless else ""
    return {}, "", ""


def _inside(value: Any, path: Path, depth: int = 0) -> tuple[State, str]:
    """The averages in what a key holds, which may be an object with a rate and a count beside them."""
    if isinstance(value, list | tuple):
        nameless = any(isinstance(item, Stored) for item in value)
        return {}, "are a list of tensors without names" if nameless else ""
    if isinstance(value, Thing) and (state := module_state(value)):
        return state, ""
    entries = entries_of(value)
    if depth < _DEEPEST:
        for key in _INSIDE:
            inner = entries.get(key)
            if isinstance(inner, dict | Thing) and any(found := _inside(inner, path, depth + 1)):
                return found
    if any(isinstance(entries.get(key), list | tuple) and entries[key] for key in _LISTS):
        return {}, "are a list of tensors without names ('shadow_params')"
    own = tensors_of(entries, path)
    wrapped = {name: tensor for name, tensor in own.items() if name.startswith("ema_model.")}
    own = {name.removeprefix("ema_model."): tensor for name, tensor in wrapped.items()} or own
    return (own, "") if len(own) > 1 or any("." in name for name in own) else ({}, "")


def among(state: State) -> Weights:
    """A state dict that may hold both, with averages under the names of what they are averages of."""
    without_dots = {name for name in state if name.startswith("model_ema.") and name.count(".") == 1}
    if without_dots - _COUNTERS:
        return _of_compvis(state, without_dots)
    for group in sorted({_group_of(name) for name in state} - {""}):
        inside = {name: tensor for name, tensor in state.items() if name.startswith(f"{group}.")}
        raw = {name: tensor for name, tensor in state.items() if name not in inside}
        bare = {name.removeprefix(f"{group}."): tensor for name, tensor in inside.items()}
        outer, _, last = group.rpartition(".")
        partner = re.sub(r"_?(ema|avg|swa|averaged?)_?", "", last)
        prefix = "".join(f"{part}." for part in (outer, partner) if part)
        named = {f"{prefix}{name}": tensor for name, tensor in bare.items()}
        if not named.keys() & raw.keys():
            named = renamed(Weights(raw, bare))
        named = {name: tensor for name, tensor in named.items() if name in raw}
        if named:
            return Weights(raw, named, quoted(group))
        if not any("." in name for name in raw) and any(name.count(".") > 1 for name in inside):
            return Weights({}, bare, quoted(group))
    return Weights({name: tensor for name, tensor in state.items() if name not in _COUNTERS}, {})


def _group_of(name: str) -> str:
    """The modules on the way to a tensor up to the one that holds averages; empty if none does."""
    modules = name.split(".")[:-1]
    last = next((index for index, module in enumerate(modules[:_DEEPEST]) if names_averages(module)), None)
    return "" if last is None else ".".join(modules[: last + 1])


def _of_compvis(state: State, without_dots: set[str]) -> Weights:
    """CompVis' `LitEma` leaves the dots out of names: `model.a.b` -> `model_ema.ab`."""
    raw = {name: tensor for name, tensor in state.items() if name not in without_dots}
    keys = {name: f"model_ema.{name.removeprefix('model.').replace('.', '')}" for name in raw}
    averaged = {name: state[key] for name, key in keys.items() if key in without_dots}
    if averaged:
        return Weights(raw, averaged, _WITHOUT_DOTS)
    reason = f"its averages ({_WITHOUT_DOTS}) have names that fit none of its weights"
    return Weights(raw, {}, nameless=reason)
