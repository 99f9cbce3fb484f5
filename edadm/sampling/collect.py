"""Filling a trajectory store with the runs of one shard."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from edadm.config.schema import Model
from edadm.sampling.ddim import Denoise
from edadm.sampling.generate import run_sampler, shard_range
from edadm.sampling.noise import ImageNoise
from edadm.sampling.schedule import sampler_timesteps
from edadm.sampling.trajectory import StepRecorder, TrajectoryStore, recording_inputs


def open_store(path: Path, model: Model, shard: int) -> TrajectoryStore:
    """The store of a shard, as far as it was filled, or a new one; whole or absent, whenever it is killed."""
    if not path.exists():
        runs = shard_range(model.trajectories.count, model.trajectories.shards, shard)
        timesteps = sampler_timesteps(model.sampler, model.schedule)
        begun = path.with_name(f"{path.name}.begun")
        shutil.rmtree(begun, ignore_errors=True)
        TrajectoryStore.create(begun, runs.start, len(runs), model.trajectories.batch_size, timesteps, model.latent_shape)
        begun.rename(path)
    for torn in path.rglob("*.partial"):  # zarr's, of a write that was killed
        torn.unlink()
    return TrajectoryStore(path, mode="r+")


def collect(
    denoise: Denoise,
    feature_module: nn.Module,
    model: Model,
    store: TrajectoryStore,
    device: torch.device,
    on_batch: Callable[[], None] = lambda: None,
) -> None:
    """Runs the sampler for every batch that the store lacks.

    Args:
        denoise: the float network as the sampler sees it.
        feature_module: the middle attention; its input is the feature of a step (method, 2.2).
        model: sampler, schedule and numbers.
        store: from `open_store`.
        device: where the network is.
        on_batch: told after each batch.
    """
    settings, size = model.trajectories, store.batch_size
    for batch in store.unfinished():
        first = store.first_run + batch * size
        runs = range(first, min(first + size, store.first_run + store.runs))
        rows = max(0, min(len(runs), settings.feature_rows - first))
        recorder = StepRecorder()
        noise = ImageNoise(settings.seed, runs, model.latent_shape, device)
        with recording_inputs(feature_module, rows) as features:
            run_sampler(denoise, model.sampler, model.schedule, noise, recorder)
        store.write(batch, recorder.stacked(), features if rows else [])
        on_batch()
