"""Which tensors of a file are a network's, under which names, and whether they are the averaged ones.

People save a network's tensors alone, or with the state of its training in dictionaries and lists of many kinds; averages of
the weights over the training lie beside the weights themselves, under a name or at a place of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edadm.models.weights.errors import CheckpointError, clean_line, quoted
from edadm.models.weights.packed.pickles import Name, Thing
from edadm.models.weights.packed.stored import Stored

Averaged = Literal["auto"] | bool
State = dict[str, Stored]
_RAW = (
    *(
        "current_model_state",
        "state_dict",
        "model_state_dict",
        "model",
        "net_model",
        "params",
        "net",
        "unet",
        "module",
        "weights",
    ),
    *("network", "diffusion", "generator", "g", "netG", "denoiser"),
)
_INSIDE_AVERAGES = (
    "shadow",
    "state_dict",
    "model_state_dict",
    "ema_state_dict",
    "ema_model",
    "model",
    "module",
    "params",
    "weights",
)
_AVERAGED_NAME = re.compile(r"(^|[_.])ema([_.]|$)|averag|shadow", re.IGNORECASE)
_WRAPPERS = {
    "model",
    "net",
    "network",
    "unet",
    "ema_model",
    "denoise_fn",
    "denoiser",
    "generator",
    "diffusion_model",
}
_TRANSPARENT = {"module", "_orig_mod"}  # of DataParallel and DistributedDataParallel, of torch.compile
_DEEPEST = 4
_MOST_MODULES = 100_000  # a module may stand at several places, so that few can make endlessly many
_WITHOUT_DOTS = "'model_ema'"  # of whole models, whose other parts have no averages


@dataclass(frozen=True)
class Weights:
    """What a file holds of a network.

    Args:
        raw: the tensors as training left them; empty if there are only averages.
        averaged: their averages; empty if there are none.
        raw_place: where the raw ones lie, for sentences.
        averaged_place: where the averages lie.
        nameless: why averages that are there cannot be taken, if so.
    """

    raw: State
    averaged: State
    raw_place: str = ""
    averaged_place: str = ""
    nameless: str = ""


def weights_in(content: object, path: Path) -> Weights:
    """The tensors of a network in what a file holds, raw and averaged, under clean names.

    Raises:
        CheckpointError: there are none, or it cannot be said which.
    """
    found = _sorted_out(content, path)
    raw = _cleaned(found.raw, path)
    averaged = _cleaned(found.averaged, path)
    if not raw and not averaged and not found.nameless:
        raise CheckpointError(f"{path} holds no plain dictionary of tensors; in the program that made it, write one with {clean_line()}")
    if not averaged:
        raw, averaged, place = _averages_among(raw)
        return Weights(_unwrapped(raw), _unwrapped(averaged), found.raw_place, place, found.nameless)
    return Weights(_unwrapped(raw), _unwrapped(averaged), found.raw_place, found.averaged_place)


def chosen(weights: Weights, averaged: Averaged, path: Path) -> tuple[State, str]:
    """The tensors that a setting asks for, and a line on them if there are averages.

    Raises:
        CheckpointError: the file lacks what is asked for.
    """
    if averaged is False:
        if not weights.raw:
            raise CheckpointError(f"{path} holds averaged weights alone ({weights.averaged_place}); set ema: true or auto")
        return weights.raw, ""
    if weights.nameless:
        raise CheckpointError(f"{path}: {weights.nameless}; write averages with names, or set ema: false for the weights as trained")
    if not weights.averaged:
        if averaged is True:
            raise CheckpointError(f"{path} holds no averaged weights; use a file that does, or set ema: auto or false")
        return weights.raw, ""
    return _with_averages(weights, path)


def _with_averages(weights: Weights, path: Path) -> tuple[State, str]:
    """The averages, and of what is not averaged (buffers, frozen parts) the only version there is."""
    if not weights.raw:
        return (
            weights.averaged,
            f"{path}: it holds averaged weights alone ({weights.averaged_place}), and they are taken",
        )
    lacking = [name for name in weights.raw if name not in weights.averaged]
    modules = {name.rpartition(".")[0] for name in weights.averaged}
    for name in lacking:
        module, _, parameter = name.rpartition(".")
        if parameter in ("weight", "bias") and module in modules:
            raise CheckpointError(f"{path} holds not all averaged weights ({quoted(name)} is absent); use one that does, or set ema: false")
    line = f"{path}: averaged weights are taken ({weights.averaged_place}); set ema: false for those as trained"
    if not set(weights.averaged) & set(weights.raw):
        return weights.averaged, f"{line}, whose names differ"
    if lacking and weights.averaged_place != _WITHOUT_DOTS:
        line = f"{line}; {len(lacking)} of {len(weights.raw)} tensors have no average (first {quoted(lacking[0])}) and stay"
    return weights.raw | weights.averaged, line


def _sorted_out(content: object, path: Path, depth: int = 0) -> Weights:
    """Raw and averaged tensors of a container, as they are named in it."""
    if isinstance(content, list | tuple):
        return _of_list(list(content), path, depth)
    if isinstance(content, Thing) and (state := module_state(content)):
        return Weights(state, {}, f"the module {content}")
    entries = _entries(content)
    if not entries:
        return Weights({}, {})
    averages, place, nameless = _averages(entries, path)
    nested = [key for key in _RAW if _holds_tensors(entries.get(key), path, depth)]
    if not nested and not _own(entries) and not averages and not nameless:
        nested = [key for key in entries if isinstance(key, str) and _holds_tensors(entries[key], path, depth)]
        if len(nested) > 1:
            names = ", ".join(map(quoted, nested[:6]))
            raise CheckpointError(f"{path} holds several sets of tensors ({names}); write the U-Net's alone with {clean_line()}")
    if nested and depth < _DEEPEST:
        inner = _sorted_out(entries[nested[0]], path, depth + 1)
        if nested[0] == "current_model_state" and not averages:  # Lightning's averaging leaves the averages under `state_dict`
            averages, place = _sorted_out(entries.get("state_dict"), path, depth + 1).raw, "'state_dict'"
        if averages or nameless:
            return Weights(inner.raw, averages, quoted(nested[0]), place, nameless)
        return inner if inner.averaged or inner.nameless else Weights(inner.raw, {}, quoted(nested[0]))
    return Weights(_tensors(entries, path) if not (averages or nameless) else {}, averages, "", place, nameless)


def _of_list(content: list[Any], path: Path, depth: int) -> Weights:
    """A list: the network's state first; the averages last, as in the list of five of ermongroup/ddim."""
    if not content or depth >= _DEEPEST:
        return Weights({}, {})
    first = _sorted_out(content[0], path, depth + 1)
    last = _own(_entries(content[-1])) if len(content) > 1 else {}
    if first.averaged or not last:
        return first
    if len(content) == 2 and set(_plain(last)) == set(_plain(first.raw)):
        reason = "it is a list of two sets of tensors with the same names, and does not say which are averages"
        return Weights(first.raw, {}, "the first", nameless=reason)
    if set(_plain(last)) & set(_plain(first.raw)):
        return Weights(first.raw, last, "the first of a list", f"the last of a list of {len(content)}")
    return first


def _entries(value: object) -> dict[Any, Any]:
    """What a dictionary, or an object that is filled like one, holds."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Thing):
        state = value.state[0] if isinstance(value.state, tuple) and value.state else value.state
        return value.entries or (state if isinstance(state, dict) else {})
    return {}


def _own(entries: Mapping[Any, Any]) -> State:
    """The tensors that lie in a dictionary itself, if they have names."""
    return {name: value for name, value in entries.items() if isinstance(value, Stored) and isinstance(name, str)}


def _holds_tensors(value: object, path: Path, depth: int) -> bool:
    if depth >= _DEEPEST or not isinstance(value, dict | Thing | list | tuple):
        return False
    if isinstance(value, list | tuple):
        return False
    if isinstance(value, Thing) and module_state(value):
        return True
    entries = _entries(value)
    if any(isinstance(name, str) and ("." in name) for name in entries) or _own(entries):
        return True
    return any(_holds_tensors(entries.get(key), path, depth + 1) for key in (*_RAW, "ema"))


def _tensors(entries: Mapping[Any, Any], path: Path) -> State:
    """The tensors of a state dict; numbers and texts beside them are left out.

    Raises:
        CheckpointError: something else stands in a tensor's place.
    """
    for name, value in entries.items():
        if isinstance(value, Stored) and not isinstance(name, str):
            raise CheckpointError(f"{path} names its tensors by {type(name).__name__} ({quoted(name)}), so it is no state of a network")
        is_weight = isinstance(name, str) and "." in name and not name.endswith("_extra_state")
        if is_weight and isinstance(value, Thing | Name | dict | list | tuple):
            raise CheckpointError(_sentence_on(name, value, path))
    return _own(entries)


_DENSE = {
    "_rebuild_sparse_tensor": "to_dense()",
    "_rebuild_qtensor": "dequantize()",
    "_rebuild_nested_tensor": "to_padded_tensor(0)",
}


def _sentence_on(name: str, value: Any, path: Path) -> str:
    """Why what stands in a tensor's place is not read, and how a clean file is made."""
    what = str(value) if isinstance(value, Thing | Name) else f"a {type(value).__name__}"
    how = _DENSE.get(what.rpartition(".")[2])
    line = clean_line(f"tensor.{how}" if how else "tensor.detach()")
    told = f"it holds {quoted(name)} as {quoted(what)}, not as a plain tensor, and nothing is executed to make it one"
    return f"{path} cannot be read as a checkpoint: {told}; write {line}"


def _averages(entries: Mapping[Any, Any], path: Path) -> tuple[State, str, str]:
    """Averages that lie under a key of their own: they, where they are, and why they cannot be taken if so."""
    for key, value in entries.items():
        if isinstance(key, str) and "." not in key and _AVERAGED_NAME.search(key) and isinstance(value, dict | Thing | list | tuple):
            state, nameless = _inside(value, path)
            if state or nameless:
                return state, quoted(key), f"its averages ({quoted(key)}) {nameless}" if nameless else ""
    return {}, "", ""


def _inside(value: Any, path: Path, depth: int = 0) -> tuple[State, str]:
    """The averages in what a key holds, which may be an object with a rate and a count beside them."""
    if isinstance(value, list | tuple):
        return {}, "are a list of tensors without names" if any(isinstance(item, Stored) for item in value) else ""
    if isinstance(value, Thing) and (state := module_state(value)):
        return state, ""
    entries = _entries(value)
    if depth < _DEEPEST:
        for key in _INSIDE_AVERAGES:
            if isinstance(entries.get(key), dict | Thing) and (found := _inside(entries[key], path, depth + 1)) != ({}, ""):
                return found
        for key in ("shadow_params", "collected_params"):
            if isinstance(entries.get(key), list | tuple) and entries[key]:
                return {}, f"are a list of tensors without names ({quoted(key)})"
    own = _tensors(entries, path)
    inner = {name.removeprefix("ema_model."): tensor for name, tensor in own.items() if name.startswith("ema_model.")}
    own = inner or own
    return (own, "") if any("." in name for name in own) or len(own) > 1 else ({}, "")


def module_state(thing: Thing) -> State:
    """The state dict of a pickled `nn.Module`, from the dictionaries that it is filled with."""
    state: State = {}
    waiting = [("", thing, 0)]
    for _ in range(_MOST_MODULES):
        if not waiting:
            break
        prefix, module, depth = waiting.pop()
        entries = _entries(module)
        parts = {kind: _entries(entries.get(kind)) for kind in ("_parameters", "_buffers", "_modules")}
        left_out = entries.get("_non_persistent_buffers_set")
        skipped = {name for name in left_out if isinstance(name, str)} if isinstance(left_out, list) else set()
        for name, tensor in (parts["_parameters"] | parts["_buffers"]).items():
            if isinstance(tensor, Stored) and name not in skipped:
                state[f"{prefix}{name}"] = tensor
        if depth < 64:
            below = [(f"{prefix}{name}.", inner, depth + 1) for name, inner in parts["_modules"].items() if isinstance(inner, Thing)]
            waiting += below[::-1]
    return state


def _plain(state: State) -> dict[str, str]:
    """Original names by names without what wrappers of modules put into them."""
    names: dict[str, str] = {}
    for name in state:
        parts = name.split(".")
        kept = [part for part in parts[:-1] if part not in _TRANSPARENT]
        names[".".join([*kept, parts[-1]])] = name
    return names


def _cleaned(state: State, path: Path) -> State:
    """The tensors under names without `module.` and `_orig_mod.`.

    Raises:
        CheckpointError: two names become one.
    """
    names = _plain(state)
    if len(names) != len(state):
        twice = next(name for name in state if names.get(name, name) != name or name not in names.values())
        raise CheckpointError(f"{path} holds {quoted(twice)} twice, with and without 'module.'; write the U-Net's state alone")
    wrapped = any(name != original for name, original in names.items())
    return {name: state[original] for name, original in names.items() if not (wrapped and name == "n_averaged")}


def _unwrapped(state: State) -> State:
    """The tensors without a first part of the name that all share, if it is one that training programs add."""
    for _ in range(_DEEPEST):
        first = {name.partition(".")[0] for name in state}
        if len(first) != 1 or not first < _WRAPPERS or any(name.startswith("model.diffusion_model.") for name in state):
            break
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}
    return state


def _averages_among(state: State) -> tuple[State, State, str]:
    """A state dict that holds both: without the averages, and the averages under the names of what they are averages of."""
    without_dots = {name for name in state if name.startswith("model_ema.") and name.count(".") == 1}
    counters = {"model_ema.decay", "model_ema.num_updates"}
    if without_dots - counters:  # CompVis' `LitEma` names `model.a.b` -> `model_ema.ab`
        raw = {name: tensor for name, tensor in state.items() if name not in without_dots}
        keys = {name: f"model_ema.{name.removeprefix('model.').replace('.', '')}" for name in raw}
        averaged = {name: state[key] for name, key in keys.items() if key in without_dots}
        return raw, averaged, _WITHOUT_DOTS
    for group in sorted({name.partition(".")[0] for name in state if _AVERAGED_NAME.search(name.partition(".")[0])}):
        rest = {name.removeprefix(f"{group}."): tensor for name, tensor in state.items() if name.startswith(f"{group}.")}
        partner = re.sub(r"_?ema_?|_?averaged?_?", "", group)
        prefix = f"{partner}." if partner else ""
        raw = {name: tensor for name, tensor in state.items() if not name.startswith(f"{group}.")}
        if prefixed := {f"{prefix}{name}": tensor for name, tensor in rest.items() if f"{prefix}{name}" in raw}:
            return raw, prefixed, quoted(group)
        if not any("." in name for name in raw) and any("." in name for name in rest):
            return {}, rest, quoted(group)
    return {name: tensor for name, tensor in state.items() if name not in counters}, {}, ""
