"""Finished stores, checked before anything is made from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edadm.artifacts import DamagedError, Facts, StaleError, date_now, reading
from edadm.artifacts.digest import sha256_of
from edadm.artifacts.metadata import check_facts, first_difference
from edadm.networks.inputs import TOLD
from edadm.sampling.store import TrajectoryStore

_AGAIN = "remove it and make it again with `edadm collect-trajectories`"


def open_finished(paths: Sequence[Path]) -> tuple[list[TrajectoryStore], str]:
    """The stores of all shards, and the digest of what they hold together.

    Raises:
        DamagedError: one cannot be read, is incomplete, or does not hold what it says.
        StaleError: they are not all shards of one collection, in order.
    """
    stores = []
    for path in paths:
        date_now(path)
        stores.append(open_whole(path)[0])
    _check_order(stores)
    return stores, collection_digest(stores)


def collection_digest(stores: Sequence[TrajectoryStore]) -> str:
    """The digest of what stores hold that were read as a whole, in however many shards it lies."""
    return sha256_of([stores[0].common(), [digest for store in stores for digest in store.batch_digests]])


def open_whole(path: Path) -> tuple[TrajectoryStore, str]:
    """A store of which every batch was read and compared with its digest, and the digest of it all.

    A store of edadm 0.1.0 has no digests; of it what must be there is looked for, chunk by chunk.

    Raises:
        DamagedError: it cannot be read, is incomplete, or does not hold what it says.
    """
    with reading(path, _AGAIN, what="a trajectory store"):
        store = TrajectoryStore(path)
        known = store.stated()
        if reason := _wrong_arrays(store, known):
            raise DamagedError(f"{path} is damaged ({reason}); {_AGAIN}")
        if known is not None:
            check_facts(path, known)
        if lost := np.flatnonzero(store.group["finished"][:] != 1).tolist():
            raise DamagedError(f"{path} is damaged (batch {lost[0]} is not marked as finished); {_AGAIN}")
        if known is None and (reason := _absent(store)):
            raise DamagedError(f"{path} is damaged ({reason}); {_AGAIN}")
        content = store.content()
        if known is not None and content != known.get("content"):
            left = store.unfinished()
            where = f"batch {left[0]}" if left else "its description"
            raise DamagedError(f"{path} is damaged ({where} has another digest than it says); {_AGAIN}")
        return store, content


def _wrong_arrays(store: TrajectoryStore, known: Facts | None) -> str | None:
    """What is wrong with names, shapes and types of arrays, before anything as large as they say is read."""
    arrays = store.arrays()
    if known is not None and arrays != known.get("arrays"):
        return "it has other arrays than it says"
    expected = (
        "latents",
        "timesteps",
        "finished",
        "distance",
        "dissimilarity",
        "feature_rows",
        "feature_elements",
    )
    if absent := [name for name in expected if name not in arrays]:
        return f"it has no array '{absent[0]}'"
    (runs, steps, *latent), batches = arrays["latents"][0], arrays["finished"][0][0]
    if (
        store.batch_size < 1
        or store.first_run < 0
        or len(latent) != 3
        or batches != -(-runs // store.batch_size)
    ):
        return "its batches do not add up to its runs"
    shapes = {"timesteps": [steps], "feature_rows": [batches], "feature_elements": [batches]}
    shapes |= {name: [batches, steps, steps] for name in ("distance", "dissimilarity")}
    if other := [name for name, shape in shapes.items() if arrays[name][0] != shape]:
        return f"its array '{other[0]}' has shape {arrays[other[0]][0]}, not {shapes[other[0]]}"
    told = {name: arrays[name][0] for name in TOLD if name in arrays}
    for name, shape in told.items():
        if shape[:1] != [runs] or (name == "context" and len(shape) != 3):
            return f"its array '{name}' has shape {shape}, not one row per run"
    return None


def _absent(store: TrajectoryStore) -> str | None:
    """Which chunks a store without digests lacks, as far as that can be told: states are never all zero."""
    for name in ("latents", "context"):
        if name in store.group and (array := store.group[name]).nchunks_initialized < array.nchunks:
            return (
                f"{array.nchunks - array.nchunks_initialized} of {array.nchunks} chunks of '{name}' are "
                "absent"
            )
    steps = store.group["timesteps"][:]
    if len(steps) > 1 and not steps.any():
        return "its timesteps are absent"
    rows, elements = store.group["feature_rows"][:], store.group["feature_elements"][:]
    if ((rows > 0) != (elements > 0)).any():
        return "the numbers of its features do not agree"
    for batch in np.flatnonzero(rows) if len(steps) > 1 else ():
        if not store.group["distance"][batch].any() or not store.group["dissimilarity"][batch].any():
            return f"the sums of batch {batch} are absent"
    return None


def _check_order(stores: Sequence[TrajectoryStore]) -> None:
    """Refuses shards that are not of one collection, or that overlap, leave gaps, or are in another order.

    Raises:
        StaleError: names the two stores.
    """
    first, end = stores[0], 0
    for store in stores:
        if store.first_run != end:
            order = "name the stores of all shards once, in order"
            raise StaleError(
                f"{store.path} begins with run {store.first_run}, where run {end} is next; {order}"
            )
        end += store.runs
        if other := _other(_settings(first), _settings(store)):
            raise StaleError(
                f"{first.path} and {store.path} differ in {other}; name stores of one collection"
            )
    known = stores[0].stated() or {}
    count = known.get("made_from", {}).get("model", {}).get("trajectories", {}).get("count", end)
    if end != count:
        raise StaleError(
            f"{stores[-1].path} ends with run {end - 1} of {count}; name the stores of all shards"
        )


def _settings(store: TrajectoryStore) -> dict[str, Any]:
    """What all shards of a collection have in common."""
    arrays = store.arrays()
    common = {
        "timesteps": store.group["timesteps"][:].tolist(),
        "shape of states": arrays["latents"][0][1:],
        "contexts": arrays.get("context", [[0]])[0][1:],
    }
    common |= {name: arrays[name][0][1:] for name in TOLD[1:] if name in arrays}
    return common | {
        name: part for name, part in (store.stated() or {}).get("made_from", {}).items() if name != "shard"
    }


def _other(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    found = first_difference(one, other)
    return None if found is None else found[0]
