"""How many jobs share the images or trajectories of a preset that leaves that to the machine.

It changes no byte of a result (`edadm.config.sharding.shares`), only which file it lies in. So work that was
begun keeps the number that it was begun with, whatever the machine that goes on with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

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


class Split:
    """The numbers of shards of a model's trajectories and variants, as its results folder notes them.

    Args:
        note: the file.
        decides: whether this process may choose for what is not begun; a job takes what was chosen.
    """

    def __init__(self, note: Path, decides: bool = True) -> None:
        self.note, self.decides = note, decides
        self.noted = _read(note)
        self.chosen: dict[str, int] = {}

    def shards(self, name: str, folder: Path, stated: str, wanted: int) -> int:
        """The number for one of them.

        Args:
            name: of what is split.
            folder: with its shards, as far as there are any.
            stated: the preset that a shard says it was made from, in whose settings the number stands.
            wanted: the number for what is not begun.
        """
        begun = [path for path in sorted(folder.glob("[0-9]*")) if path.suffix in (".npy", ".zarr")]
        if name not in self.chosen:
            known = self.noted.get(name)
            if begun and known is None:
                known = _stated(begun[0], stated)
            self.chosen[name] = wanted if known is None or (self.decides and not begun) else known
        return self.chosen[name]

    def keep(self) -> None:
        """Notes the numbers before work begins."""
        if self.noted | self.chosen != self.noted:
            self.note.parent.mkdir(parents=True, exist_ok=True)
            writing_json(self.note, self.noted | self.chosen)


def _stated(path: Path, preset: str) -> int | None:
    with suppress(Exception):  # a damaged file, which the stage that reads it says more about
        made_from = (describe(path) or {}).get("made_from", {})
        settings = made_from["model"]["trajectories"] if preset == "model" else made_from[preset]
        return int(settings["shards"])
    return None


def _read(note: Path) -> dict[str, int]:
    try:
        found: Any = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    return dict(found) if isinstance(found, Mapping) else {}
