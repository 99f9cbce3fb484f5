"""Which images or trajectories each of several jobs makes."""

from __future__ import annotations

from typing import Literal, TypeVar

from edadm.config.layout import Variant
from edadm.config.schema import AUTO, Config, Evaluation, Model, Trajectories
from edadm.errors import EdadmError

Preset = TypeVar("Preset", Model, Evaluation)


def shard_range(total: int, shards: int, shard: int, batch_size: int) -> range:
    """The indices of one of `shards` nearly equal, contiguous parts of 0 .. total - 1.

    A part begins where a batch of the whole begins, so that every image has the neighbours that it has in one
    part alone, with which the last bits of sums go. Only where there are more parts than batches, batches are
    smaller.

    Raises:
        EdadmError: there is no such shard.
    """
    if not 0 <= shard < shards:
        raise EdadmError(f"there is no shard {shard}; shards are counted from 0 to {shards - 1}")
    batches = -(-total // batch_size)
    if shards > batches:
        return range(total * shard // shards, total * (shard + 1) // shards)
    begin, end = (batches * part // shards * batch_size for part in (shard, shard + 1))
    return range(begin, min(end, total))


def number(shards: int | Literal["auto"]) -> int:
    """The number of shards of a preset; one where it leaves that to a machine and none is asked."""
    return 1 if shards == AUTO else shards


def share(settings: Trajectories | Evaluation, shard: int) -> range:
    """The trajectories or images of one shard; see `shard_range`."""
    total = settings.images if isinstance(settings, Evaluation) else settings.count
    return shard_range(total, number(settings.shards), shard, settings.batch_size)


def shares(settings: Trajectories | Evaluation) -> list[range]:
    """The trajectories or images of every shard."""
    return [share(settings, shard) for shard in range(number(settings.shards))]


def settled(preset: Preset, shards: int = 1) -> Preset:
    """The preset with a number of shards where it leaves that to the machine."""
    if isinstance(preset, Evaluation):
        return preset.model_copy(update={"shards": shards}) if preset.shards == AUTO else preset
    if preset.trajectories.shards != AUTO:
        return preset
    recorded = preset.trajectories.model_copy(update={"shards": shards})
    return preset.model_copy(update={"trajectories": recorded})


def refuse_undecided(config: Config) -> None:
    """Refuses numbers of shards that planning would choose, where jobs see no note of what it chose.

    Raises:
        EdadmError: a run leaves one to the machine.
    """
    presets = []
    for run in config.runs:
        collects = any(Variant(name).is_quantized for name in run.variants)
        if collects and config.models[run.model].trajectories.shards == AUTO:
            presets.append(f"models.{run.model}.trajectories")
        if config.evaluations[run.evaluation].shards == AUTO:
            presets.append(f"evaluations.{run.evaluation}")
    if presets:
        raise EdadmError(
            f"jobs without a shared file system cannot see how many shards `auto` came to; write a number, "
            f"`shards: N`, for {', '.join(dict.fromkeys(presets))}"
        )
