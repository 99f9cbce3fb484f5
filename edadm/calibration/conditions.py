"""Calibration rows of networks that take a condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from edadm.calibration.base import Store
from edadm.networks.inputs import TOLD, replaced
from edadm.sampling.store import unconditional_array

HELD_OUT = "held_out_"


def with_conditions(chosen: Mapping[str, np.ndarray], groups: Sequence[Store]) -> dict[str, np.ndarray]:
    """Selected states with what their trajectories are told; guidance makes two rows of each (method, 4.2).

    The unconditional row of a state comes right before its conditional one, so that they stay together in any
    batch of an even number of rows; where guidance drops an image, too, there are three, as
    `networks.inputs.replaced` has them. Without a condition everything stays as it is.

    Args:
        chosen: from `select`: arrays whose row k is of trajectory k, and `held_out_` ones, of the
            trajectories after those.
        groups: trajectory stores of consecutive shards.
    """
    told = {name: arrays for name in TOLD if (arrays := _arrays(name, groups))}
    if not told:
        return dict(chosen)
    nothing = {
        name: np.asarray(found[0][:])
        for name in told
        if (found := _arrays(unconditional_array(name), groups))
    }
    size = len(chosen["latents"])
    rows: dict[str, np.ndarray] = {}
    for prefix, first in (("", 0), (HELD_OUT, size)):
        own = {name: array for name, array in chosen.items() if name.startswith(HELD_OUT) == bool(prefix)}
        if not own:
            continue
        count = len(own[f"{prefix}latents"])
        given = {name: _rows(arrays, first, count) for name, arrays in told.items()}
        if nothing:
            names = replaced(nothing)
            own = {name: np.repeat(array, len(names), axis=0) for name, array in own.items()}
            given = {
                name: _beside([nothing[name] if name in without else array for without in names])
                for name, array in given.items()
            }
        rows |= own | {f"{prefix}{name}": array for name, array in given.items()}
    return rows


def _arrays(name: str, groups: Sequence[Store]) -> list[Any]:
    """The array of a name in every store; none if stores have no such array."""
    try:
        return [group[name] for group in groups]
    except KeyError:
        return []


def _beside(parts: Sequence[Shaped[np.ndarray, "..."]]) -> Shaped[np.ndarray, " m *s"]:
    """Rows of several arrays by turns; the last has all rows, others may be one row that says nothing."""
    given = parts[-1]
    together = np.stack([np.broadcast_to(part, given.shape) for part in parts], axis=1)
    return together.reshape(-1, *given.shape[1:])


def _rows(arrays: Sequence[Any], first: int, count: int) -> Shaped[np.ndarray, " n *s"]:
    """The rows of trajectories first .. first + count - 1, over all shards."""
    parts, start = [], 0
    for array in arrays:
        parts.append(np.asarray(array[max(first - start, 0) : max(first + count - start, 0)]))
        start += array.shape[0]
    return np.concatenate(parts)
