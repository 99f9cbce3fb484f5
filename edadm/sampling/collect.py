"""Filling a trajectory store with the runs of one shard."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from edadm.artifacts import placing
from edadm.config.schema import Model
from edadm.config.sharding.shares import share
from edadm.console import say
from edadm.errors import EdadmError
from edadm.sampling.generate import run_sampler
from edadm.sampling.noise import ImageNoise
from edadm.sampling.replay import Replay
from edadm.sampling.samplers.ddim import Denoise, denoiser_of
from edadm.sampling.schedule import sampler_timesteps
from edadm.sampling.store import TrajectoryStore
from edadm.sampling.trajectory import StepRecorder, recording_inputs


@runtime_checkable
class Told(Protocol):
    """The condition of trajectories, by index (see `edadm.conditions.condition`)."""

    def rows(self, indices: Sequence[int]) -> Mapping[str, Tensor]:
        """What the network is told of each trajectory, by name of the input."""

    def unconditional(self) -> Mapping[str, Tensor]:
        """One row that says nothing, of each of these inputs that guidance replaces."""


def open_store(path: Path, model: Model, shard: int, told: Told | None = None) -> TrajectoryStore:
    """The store of a shard, as far as it was filled, or a new one; whole or absent, whenever it is killed.

    One that is not as it was made is begun anew.
    """
    runs = share(model.trajectories, shard)
    timesteps = sampler_timesteps(model.sampler, model.schedule)
    nothing = {} if told is None else {name: rows[0] for name, rows in told.unconditional().items()}
    kept = {} if told is None else {name: torch.zeros(shape) for name, shape in _kept(model, nothing)}
    guided = model.conditioning is not None and model.conditioning.guidance != 1
    sizes = (runs.start, len(runs), model.trajectories.batch_size, timesteps, model.latent_shape)
    begun = path.with_name(f"{path.name}.begun")
    with placing(path):
        shutil.rmtree(begun, ignore_errors=True)
        fresh = TrajectoryStore.create(begun, *sizes, nothing, guided, kept)
        for torn in path.rglob("*.partial"):  # zarr's, of a write that was killed
            torn.unlink()
        if path.exists() and not _same_frame(path, fresh):
            say(f"{path} is damaged; it is begun anew")
            shutil.rmtree(path)
        if not path.exists():
            begun.rename(path)
        shutil.rmtree(begun, ignore_errors=True)
    return TrajectoryStore(path, mode="r+")


def _kept(model: Model, nothing: Collection[str]) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of what guidance leaves as it is: images."""
    return [(name, shape) for name, shape in model.condition_shapes.items() if name not in nothing]


def _same_frame(path: Path, fresh: TrajectoryStore) -> bool:
    """Whether a store has the attributes and arrays of a new one, and what a new one holds already."""
    try:
        store = TrajectoryStore(path)
        known = {name: store.group.attrs[name] for name in fresh.group.attrs}
        given = [name for name, _ in fresh.group.arrays() if name.startswith(("timesteps", "unconditional"))]
        return (
            known == dict(fresh.group.attrs)
            and store.arrays() == fresh.arrays()
            and all(np.array_equal(store.group[name][:], fresh.group[name][:]) for name in given)
            and all(store.group[name].metadata == array.metadata for name, array in fresh.group.arrays())
        )
    except Exception:  # zarr and its codecs raise many kinds
        return False


def collect(
    denoise: Denoise,
    feature_module: nn.Module,
    model: Model,
    store: TrajectoryStore,
    device: torch.device,
    on_batch: Callable[[], None] = lambda: None,
    told: Told | None = None,
    replay: Replay | None = None,
) -> None:
    """Runs the sampler for every batch that the store lacks.

    Args:
        denoise: the float network as the sampler sees it.
        feature_module: the middle attention; its input is the feature of a step (method, 2.2). With guidance,
            features of unconditional and conditional rows count.
        model: sampler, schedule and numbers.
        store: from `open_store`.
        device: where the network is.
        on_batch: told after each batch.
        told: the condition of each trajectory, for models that have one.
        replay: what makes the denoiser's calls, if it has that.

    Raises:
        EdadmError: a state holds infinities or no numbers.
    """
    settings, size = model.trajectories, store.batch_size
    for batch in store.unfinished():
        first = store.first_run + batch * size
        runs = range(first, min(first + size, store.first_run + store.runs))
        rows = max(0, min(len(runs), settings.feature_rows - first))
        noise = ImageNoise(settings.seed, runs, model.latent_shape, device)
        recording = recording_inputs(feature_module, rows, len(runs))
        with recording as calls, replay.noting(calls, (rows, len(runs))) if replay else nullcontext():
            recorder = StepRecorder(calls)
            run_sampler(denoiser_of(denoise, runs), model.sampler, model.schedule, noise, recorder)
        features = recorder.last_of_each_step() if rows else []
        states = recorder.stacked()
        if not bool(states.isfinite().all()):
            raise EdadmError(
                f"trajectories {runs[0]} to {runs[-1]} are not finite; look for such numbers in the "
                "checkpoint's weights"
            )
        store.write(batch, states, features, None if told is None else told.rows(runs))
        on_batch()
