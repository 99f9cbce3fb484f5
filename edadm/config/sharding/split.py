"""How many jobs share the images or trajectories of a preset that leaves that to the machine.

It changes no byte of a result (`edadm.config.sharding.shares`), only which file it lies in. So work that was
begun keeps the number that it was begun with, whatever the machine that goes on with it, as long as the
preset has the same total and batch size, by which shards begin and end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from edadm.artifacts import describe, writing_json

LEAST_CALLS = 500  # of the network in a job, which starts in less time than these take
MOST_CALLS = 20_000  # in a job of generation, which loses all of them when it is killed


def shards_for(devices: int, total: int, batch_size: int, calls: int) -> int:
    """As many jobs as devices, where each has enough to do, and several for each device where that is much.

    Args:
        devices: on which jobs can run at once.
        total: images or trajectories.
        batch_size: of them, computed at once; a job has whole batches.
        calls: of the network, for one batch.
    """
    batches = -(-total // batch_size)
    at_once = min(devices, batches * calls // LEAST_CALLS)
    needed = -(-batches * calls // MOST_CALLS)
    rounds = -(-needed // max(1, at_once))
    return max(1, min(batches, max(1, at_once) * max(1, rounds)))


class Division(NamedTuple):
    """A number of shards, and what it was decided for.

    Attributes:
        shards: the number.
        total: images or trajectories.
        batch_size: of them, computed at once.
    """

    shards: int
    total: int
    batch_size: int


class Split:
    """The numbers of shards of a model's trajectories and variants, as its results folder notes them.

    Args:
        note: the file.
        decides: whether this process may choose for what is not begun; a job takes what was chosen.
    """

    def __init__(self, note: Path, decides: bool = True) -> None:
        self.note, self.decides = note, decides
        self.noted = _read(note)
        self.chosen: dict[str, Division] = {}

    def shards(self, name: str, folder: Path, preset: str, wanted: Division) -> int:
        """The number for one of them.

        Args:
            name: of what is split.
            folder: with its shards, as far as there are any.
            preset: that a shard says it was made from, in whose settings the number stands.
            wanted: the number for what is not begun, with the total and the batch size of now.
        """
        finished = [path for path in sorted(folder.glob("[0-9]*")) if path.suffix in (".npy", ".zarr")]
        if name not in self.chosen:
            known = self.noted.get(name)
            if finished and known is None:
                known = stated(finished[0], preset)
            begun = bool(finished) or any(folder.glob(".[0-9]*.progress"))
            keeps = (begun or not self.decides) and known is not None and known[1:] == wanted[1:]
            self.chosen[name] = wanted._replace(shards=known.shards) if known and keeps else wanted
        return self.chosen[name].shards

    def keep(self) -> None:
        """Notes the numbers before work begins."""
        if self.noted | self.chosen != self.noted:
            self.note.parent.mkdir(parents=True, exist_ok=True)
            noted = (self.noted | self.chosen).items()
            writing_json(self.note, {name: division._asdict() for name, division in noted})


def stated(path: Path, preset: str) -> Division | None:
    """What a shard says of the number that it is one of; None if it says nothing, or is damaged.

    Args:
        path: the shard.
        preset: that it says it was made from: `model` or `evaluation`.
    """
    with suppress(Exception):  # a damaged file, which the stage that reads it says more about
        made_from = (describe(path) or {}).get("made_from", {})
        settings = made_from["model"]["trajectories"] if preset == "model" else made_from[preset]
        return _division(settings | {"total": settings.get("count", settings.get("images"))})
    return None


def _read(note: Path) -> dict[str, Division]:
    try:
        found: Any = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    known = {name: _division(one) for name, one in found.items()} if isinstance(found, Mapping) else {}
    return {name: division for name, division in known.items() if division}


def _division(found: Any) -> Division | None:
    """A division as it is noted; None if it is none."""
    told = found if isinstance(found, Mapping) else {}
    numbers = [one for name in Division._fields if type(one := told.get(name)) is int and one > 0]
    return Division(*numbers) if len(numbers) == len(Division._fields) else None
