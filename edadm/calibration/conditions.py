"""Calibration rows of networks that take a condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from edadm.calibration.base import Store

HELD_OUT = "held_out_"


def with_context(chosen: Mapping[str, np.ndarray], groups: Sequence[Store]) -> dict[str, np.ndarray]:
    """Selected states with their trajectories' context; guidance makes two rows of each (method, 4.2).

    The unconditional row of a state comes right before its conditional one, so that they stay together in any
    batch of an even number of rows. Without a condition everything stays as it is.

    Args:
        chosen: from `select`: arrays whose row k is of trajectory k, and `held_out_` ones, of the
            trajectories after those.
        groups: trajectory stores of consecutive shards.
    """
    try:
        contexts = [group["context"] for group in groups]
    except KeyError:
        return dict(chosen)
    try:
        unconditional = np.asarray(groups[0]["unconditional"][:])
    except KeyError:
        unconditional = None
    size = len(chosen["latents"])
    rows: dict[str, np.ndarray] = {}
    for prefix, first in (("", 0), (HELD_OUT, size)):
        own = {name: array for name, array in chosen.items() if name.startswith(HELD_OUT) == bool(prefix)}
        if not own:
            continue
        count = len(own[f"{prefix}latents"])
        conditional = _context(contexts, first, count)
        if unconditional is None:
            rows |= own | {f"{prefix}context": conditional}
            continue
        pairs = np.stack([np.broadcast_to(unconditional, conditional.shape), conditional], axis=1)
        rows |= {name: np.repeat(array, 2, axis=0) for name, array in own.items()}
        rows[f"{prefix}context"] = pairs.reshape(-1, *conditional.shape[1:])
    return rows


def _context(contexts: Sequence[Any], first: int, count: int) -> Float[np.ndarray, "n tokens channels"]:
    """The context of trajectories first .. first + count - 1, over all shards."""
    parts, start = [], 0
    for context in contexts:
        parts.append(np.asarray(context[max(first - start, 0) : max(first + count - start, 0)]))
        start += context.shape[0]
    return np.concatenate(parts)
