"""Which tensors of a file are a network's, under which names, and whether they are the averaged ones.

People save a network's tensors alone, or with the state of its training in dictionaries and lists of many
kinds; averages of the weights lie beside the weights themselves, under a name or at a place of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edadm.models.weights.averages import Averaged, among, chosen, under_a_key
from edadm.models.weights.errors import CheckpointError, clean_line, quoted
from edadm.models.weights.packed.pickles import Thing
from edadm.models.weights.states import State, Weights, entries_of, module_state, named_tensors, tensors_of

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
_TRANSPARENT = {"module", "_orig_mod"}  # of DataParallel and DistributedDataParallel, of torch.compile
_DEEPEST = 4


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
    if averaged or found.nameless:
        return Weights(_unwrapped(raw), _unwrapped(averaged), found.place, found.nameless)
    inner = among(raw)
    return Weights(_unwrapped(inner.raw), _unwrapped(inner.averaged), inner.place, inner.nameless)


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
        nested = _only_one([key for key in keys if _holds_tensors(entries[key], depth)], path)
    if not nested or depth >= _DEEPEST:
        return Weights({} if averages or nameless else tensors_of(entries, path), averages, place, nameless)
    inner = _sorted_out(entries[nested[0]], path, depth + 1)
    if nested[0] == _BESIDE_AVERAGES and not averages:
        averages, place = _sorted_out(entries.get("state_dict"), path, depth + 1).raw, "'state_dict'"
    return Weights(inner.raw, averages, place, nameless) if averages or nameless else inner


def _only_one(keys: list[Any], path: Path) -> list[Any]:
    """The keys, if there is one or none.

    Raises:
        CheckpointError: there are more.
    """
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
    return any(_holds_tensors(entries.get(key), depth + 1) for key in (*_RAW, "ema"))


def _plain(state: State) -> dict[str, str]:
    """Original names by names without what wrappers of modules put into them."""
    names: dict[str, str] = {}
    for name in state:
        *parts, last = name.split(".")
        names[".".join([*(part for part in parts if part not in _TRANSPARENT), last])] = name
    return names


def _cleaned(state: State, path: Path) -> State:
    """The tensors under names without `module.` and `_orig_mod.`.

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
