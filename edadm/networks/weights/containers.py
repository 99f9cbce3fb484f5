"""Which tensors of a file are a network's, under which names, and whether they are the averaged ones.

People save a network's tensors alone, or with the state of its training in dictionaries and lists of many
kinds; averages of the weights lie beside the weights themselves, under a name or at a place of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edadm.networks.weights.averages import Averaged, among, chosen, renamed, under_a_key
from edadm.networks.weights.elsewhere import Further, further_sets, names_averages
from edadm.networks.weights.errors import CheckpointError, clean_line, quoted
from edadm.networks.weights.packed.pickles import Thing
from edadm.networks.weights.states import State, Weights, entries_of, module_state, named_tensors, tensors_of

__all__ = ["Averaged", "State", "Weights", "chosen", "weights_in"]
_BESIDE_AVERAGES = "current_model_state"  # of Lightning's averaging; averages are under `state_dict`
_RAW = (
    *(_BESIDE_AVERAGES, "state_dict", "model_state_dict", "model", "net_model", "params", "net", "unet"),
    *("module", "weights", "network", "diffusion", "generator", "g", "netG", "denoiser"),
)
_WRAPPERS = {
    *("model", "net", "network", "unet", "ema_model", "denoise_fn", "denoiser"),
    *("generator", "diffusion_model"),
}
_TRANSPARENT = {  # of DataParallel, torch.compile, FSDP, activation checkpointing, Fabric
    *("module", "_orig_mod"),
    *("_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"),
}
_DEEPEST = 8


def weights_in(content: object, path: Path) -> Weights:
    """The tensors of a network in what a file holds, raw and averaged, under clean names.

    Raises:
        CheckpointError: there are none, or it cannot be said which.
    """
    found = _sorted_out(content, path)
    raw, averaged = _cleaned(found.raw, path), _cleaned(found.averaged, path)
    if not raw and not averaged and not found.nameless:
        lacking = f"{path} holds no plain dictionary of tensors"
        raise CheckpointError(f"{lacking}; in the program that made it, write one with {clean_line()}")
    known = Weights(raw, averaged, found.place, found.nameless) if averaged or found.nameless else among(raw)
    known = Weights(_unwrapped(known.raw), _unwrapped(known.averaged), known.place, known.nameless)
    return known if known.nameless or not known.raw else _with_further(known, found, content, path)


def _with_further(known: Weights, found: Weights, content: object, path: Path) -> Weights:
    """The weights, with averages that lie elsewhere; or why it cannot be said which are averages."""

    def alike(state: State) -> bool:
        plain = {name: state[original] for name, original in _plain(state).items()}
        named = renamed(Weights(known.raw, _unwrapped(plain)))
        there = {name: tensor for name, tensor in named.items() if name in known.raw}
        shared = [name for name, tensor in there.items() if tensor.shape == known.raw[name].shape]
        return len(shared) > 1 and 2 * len(shared) >= len(named)

    further = further_sets(content, found.raw | found.averaged, alike)
    if known.averaged:
        rivals = [one for one in further if _is_rival(one, known.place)]
        several = f"it holds several averages ({known.place} and {quoted(rivals[0].place)})" if rivals else ""
        return replace(known, nameless=several)
    averages = [one for one in further if one.is_averaged]
    if not further:
        return known
    if len(averages) != 1:
        place = quoted((averages or further)[-1].place)
        another = f"it holds another set of the network's tensors ({place})"
        return replace(known, nameless=f"{another}, and does not say which are averages")
    place = quoted(averages[0].place)
    if not averages[0].state:
        return replace(known, nameless=f"its averages ({place}) are a list of tensors without names")
    return replace(known, averaged=_unwrapped(_cleaned(averages[0].state, path)), place=place)


def _is_rival(one: Further, place: str) -> bool:
    """Whether a set is of averages, too, and not of what stands beside averages under their name."""
    outermost, innermost = one.keys[0], one.keys[-1]
    return names_averages(innermost) or (names_averages(outermost) and quoted(outermost) != place)


def _sorted_out(content: object, path: Path, depth: int = 0) -> Weights:
    """Raw and averaged tensors of a container, as they are named in it."""
    if isinstance(content, list | tuple):
        return _of_list(list(content), path, depth)
    if isinstance(content, Thing) and (state := module_state(content)):
        return Weights(state, {})
    entries = entries_of(content)
    averages, place, nameless = under_a_key(entries, path)
    nested = [key for key in _RAW if _holds_tensors(entries.get(key), depth)]
    if not (nested or averages or nameless or named_tensors(entries)):
        keys = [key for key in entries if isinstance(key, str)]
        nested = _only_one([key for key in keys if _holds_tensors(entries[key], depth)], entries, path)
    if not nested or depth >= _DEEPEST:
        return Weights({} if averages or nameless else tensors_of(entries, path), averages, place, nameless)
    inner = _sorted_out(entries[nested[0]], path, depth + 1)
    if nested[0] == _BESIDE_AVERAGES and not averages:
        averages, place = _sorted_out(entries.get("state_dict"), path, depth + 1).raw, "'state_dict'"
    return Weights(inner.raw, averages, place, nameless) if averages or nameless else inner


def _only_one(keys: list[Any], entries: Mapping[Any, Any], path: Path) -> list[Any]:
    """The keys, if there is one or none, or one alone under which tensors have names of modules.

    Raises:
        CheckpointError: there are more.
    """
    networks = [key for key in keys if _has_modules(entries[key])]
    keys = networks if len(networks) == 1 else keys
    if len(keys) > 1:
        names = ", ".join(map(quoted, keys[:6]))
        several = f"{path} holds several sets of tensors ({names})"
        raise CheckpointError(f"{several}; write the U-Net's alone with {clean_line()}")
    return keys


def _of_list(content: list[Any], path: Path, depth: int) -> Weights:
    """A list: the network's state first; the averages last, as in the list of five of ermongroup/ddim."""
    if not content or depth >= _DEEPEST:
        return Weights({}, {})
    first = _sorted_out(content[0], path, depth + 1)
    last = named_tensors(entries_of(content[-1])) if len(content) > 1 else {}
    if first.averaged or not last:
        return first
    shared = _plain(last).keys() & _plain(first.raw).keys()
    if shared and len(content) == 2:
        reason = "it is a list of two sets of tensors, and does not say which are averages"
        return Weights(first.raw, {}, nameless=reason)
    return Weights(first.raw, last, f"the last of a list of {len(content)}") if shared else first


def _holds_tensors(value: object, depth: int) -> bool:
    """Whether a dictionary or object is a state of a network, or has one inside."""
    if depth >= _DEEPEST or not isinstance(value, dict | Thing):
        return False
    if isinstance(value, Thing) and module_state(value):
        return True
    entries = entries_of(value)
    if named_tensors(entries) or any(isinstance(name, str) and "." in name for name in entries):
        return True
    return any(_holds_tensors(inner, depth + 1) for name, inner in entries.items() if isinstance(name, str))


def _has_modules(value: object, depth: int = 0) -> bool:
    """Whether a dictionary or object holds tensors, at any depth, that are named by modules."""
    if depth >= _DEEPEST or not isinstance(value, dict | Thing):
        return False
    if isinstance(value, Thing) and module_state(value):
        return True
    entries = entries_of(value)
    if any("." in name for name in named_tensors(entries)):
        return True
    return any(_has_modules(inner, depth + 1) for inner in entries.values())


def _plain(state: State) -> dict[str, str]:
    """Original names by names without what wrappers of modules put into them."""
    names: dict[str, str] = {}
    for name in state:
        *parts, last = name.split(".")
        names[".".join([*(part for part in parts if part not in _TRANSPARENT), last])] = name
    return names


def _cleaned(state: State, path: Path) -> State:
    """The tensors under names without `module.`, `_orig_mod.` and other wrappers'.

    Raises:
        CheckpointError: two names become one.
    """
    names = _plain(state)
    if lost := sorted(set(state) - set(names.values())):
        twice = f"{path} holds {quoted(lost[0])} twice, with and without 'module.'"
        raise CheckpointError(f"{twice}; write the U-Net's state alone")
    if any(name != original for name, original in names.items()):
        names.pop("n_averaged", None)  # of `torch.optim.swa_utils`
    return {name: state[original] for name, original in names.items()}


def _unwrapped(state: State) -> State:
    """The tensors without a first part of the name that all share, if training programs add it."""
    for _ in range(_DEEPEST):
        first = {name.partition(".")[0] for name in state}
        is_compvis = any(name.startswith("model.diffusion_model.") for name in state)
        if len(first) != 1 or not first < _WRAPPERS or is_compvis:
            break
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}
    return state
