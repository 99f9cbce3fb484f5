"""Further sets of a network's tensors in a file, wherever they lie.

Averages, or others that nothing tells apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edadm.networks.weights.packed.pickles import Thing
from edadm.networks.weights.packed.stored import Stored
from edadm.networks.weights.states import State, entries_of, module_state, named_tensors

Keys = tuple[object, ...]
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_AVERAGE = {"ema", "avg", "swa", "polyak"}
_BEGINNINGS = ("averag", "shadow")
_MOMENTS = re.compile(r"exp_avg|grad", re.IGNORECASE)  # of gradients, not of weights
_OPTIMIZER = re.compile(r"opt(?:im.*|s|_.*)?", re.IGNORECASE)
_DEEPEST = 10
_MOST = 100_000


def names_averages(key: object) -> bool:
    """Whether the name of an entry tells of averages, in any of the spellings of programs."""
    if not isinstance(key, str) or _MOMENTS.search(key):
        return False
    words = [word.lower() for word in _WORD.findall(key)]
    return any(word in _AVERAGE or word.startswith(_BEGINNINGS) for word in words)


@dataclass(frozen=True)
class Further:
    """A set of tensors that is of the same network as another.

    Args:
        keys: of the dictionaries and lists in which it lies, the outermost first.
        state: its tensors; empty if they have no names.
    """

    keys: Keys
    state: State

    @property
    def place(self) -> str:
        """Where it lies, for sentences."""
        parts = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys]
        return "".join(parts).removeprefix(".")

    @property
    def is_averaged(self) -> bool:
        """Whether a name on the way to it tells of averages."""
        return any(map(names_averages, self.keys))

    @property
    def is_of_training(self) -> bool:
        """Whether it is of gradients, or of an optimizer that does not say that it averages weights."""
        names = [key for key in self.keys if isinstance(key, str)]
        if any(map(_MOMENTS.search, names)):
            return True
        return any(map(_OPTIMIZER.fullmatch, names)) and not self.is_averaged


def further_sets(content: object, taken: State, alike: Callable[[State], bool]) -> list[Further]:
    """The sets of tensors in a file that are of the network, besides those of which any are taken.

    Args:
        content: what the file holds.
        taken: tensors that were found already.
        alike: whether tensors are those of the network.
    """
    known = {id(tensor) for tensor in taken.values()}
    shapes = {tensor.shape for tensor in taken.values()}
    found = []
    for keys, held in _walk(content):
        if isinstance(held, dict):
            if len(held) > 1 and not any(id(tensor) in known for tensor in held.values()) and alike(held):
                found.append(Further(keys, held))
        elif 2 * len(held) >= len(taken) and all(tensor.shape in shapes for tensor in held):
            nameless = Further(keys, {})
            found += [nameless] if nameless.is_averaged else []
    return [one for one in found if not one.is_of_training]


def _walk(content: object) -> Iterator[tuple[Keys, State | list[Stored]]]:
    """All sets of tensors, named and nameless, with the keys that lead to them; each once."""
    waiting: list[tuple[Keys, object]] = [((), content)]
    seen: set[int] = set()
    for _ in range(_MOST):
        if not waiting:
            return
        keys, value = waiting.pop()
        if id(value) in seen or len(keys) > _DEEPEST:
            continue
        seen.add(id(value))
        if isinstance(value, list | tuple):
            tensors = [item for item in value if isinstance(item, Stored)]
            if len(tensors) > 1:
                yield keys, tensors
            waiting += [((*keys, index), item) for index, item in enumerate(value) if _is_container(item)][
                ::-1
            ]
            continue
        state = module_state(value) if isinstance(value, Thing) else {}
        entries = {} if state else entries_of(value)
        if state or (state := named_tensors(entries)):
            yield keys, state
        waiting += [((*keys, key), item) for key, item in entries.items() if _is_container(item)][::-1]


def _is_container(value: object) -> bool:
    return isinstance(value, dict | list | tuple | Thing)
