"""Collect: sampler runs of the float network, with the distances between features that TDAC needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edadm.config.schema import Model
from edadm.config.stated import settings_of
from edadm.console import progress_bar
from edadm.stages.cost.work import (
    FP32,
    Cost,
    Memory,
    condition_bytes,
    evaluations_per_run,
    latent_elements,
    rows_per_image,
    sampling,
)
from edadm.stages.inputs.model import open_condition, open_float, open_prediction
from edadm.stages.inputs.provenance import code_of, digests, facts_of

if TYPE_CHECKING:
    import torch

    from edadm.stages.cost.networks import Networks

MODEL = ("architecture", "conditioning", "schedule", "sampler", "prediction", "trajectories")  # settings
_ENTRY, _CHECKSUM = 16, 4  # bytes of a chunk in the index of its shard, and of all in it
_FRAME, _FRAME_OF_TOLD = 28, 8  # files and folders of an empty store, and for what runs are told
_BATCH, _BATCH_OF_TOLD = 16, 3  # and of a batch
_COPY_BYTES = 24  # of an element of a piece of features in fp64: itself, normalised, and joined


def run(
    model: Model,
    unet: Path,
    condition: Path | None,
    shard: int,
    output: Path,
    progress: Path,
    device: torch.device,
    label: str,
    graphs: bool = True,
) -> None:
    """Records full-precision sampler runs to zarr, batch by batch.

    Args:
        model: the preset.
        unet, condition: weights, from `convert-checkpoint`.
        shard: which part of the runs, from 0.
        output: the store.
        progress: a folder for finished batches, from which a killed run goes on.
        device: where.
        label: what progress lines call this run.
        graphs: whether a GPU replays the network's calls.
    """
    from edadm.artifacts import making, refuse_to_replace
    from edadm.config.files.sources import locate_images, locate_prompts
    from edadm.config.sharding.shares import settled
    from edadm.networks.families import family_of
    from edadm.sampling.collect import collect, open_store
    from edadm.sampling.denoiser import Denoiser
    from edadm.sampling.replay import Replay

    model = settled(model)
    given = {"prompts": locate_prompts("given", model), "images": locate_images("given", model)}
    inputs = digests(unet=unet, condition=condition, **given)
    made_from = {"model": settings_of(model, *MODEL), "shard": shard, "inputs": inputs}
    known = facts_of("trajectories", made_from, device)
    with making([output], known, code_of("collect", device), progress) as work:
        if work is None:
            return
        refuse_to_replace(output, known)
        told = open_condition(model, condition, model.trajectories.count, device)
        network = open_float(model.architecture, unet, device)
        replay = Replay() if graphs and device.type == "cuda" else None
        denoise = Denoiser(network, told, model.guidance, prediction=open_prediction(model), replay=replay)
        store = open_store(work.folder / "store.zarr", model, shard, told)
        with progress_bar(label, len(store.unfinished()), "batches") as advance:
            features = family_of(network).feature_module(network)
            collect(denoise, features, model, store, device, lambda: advance(1), told, replay)
        store.seal(known)
        work.publish_folder(store.path)


def cost(name: str, networks: Networks) -> Cost:
    """The cost of all shards; its bytes are those of states and conditions, in chunks of whole batches."""
    from edadm.config.sharding.shares import shares
    from edadm.sampling.schedule import sampler_timesteps

    model, recorded = networks.model, networks.model.trajectories
    shards = shares(recorded)
    passes = sampling(model, shards, recorded.batch_size, "float", "fp32")
    steps = len(sampler_timesteps(model.sampler, model.schedule))
    batches, told = (
        sum(-(-len(shard) // recorded.batch_size) for shard in shards),
        len(model.condition_shapes),
    )
    row = steps * latent_elements(model) * FP32 + condition_bytes(model)
    disk = batches * (recorded.batch_size * row + steps * _ENTRY + _CHECKSUM)
    files = len(shards) * (_FRAME + told * _FRAME_OF_TOLD) + batches * (_BATCH + told * _BATCH_OF_TOLD)
    rows = min(recorded.feature_rows, recorded.batch_size, len(shards[0])) * rows_per_image(model)
    held = memory(networks, passes.batch, evaluations_per_run(model) * rows)
    whole = Cost("collect-trajectories", name, (passes,), disk=disk, files=files, memory=held)
    return whole.divided(recorded.shards, -(-recorded.count // recorded.batch_size))


def memory(networks: Networks, batch: int, feature_rows: int) -> Memory:
    """The device memory of a batch; `feature_rows` are those of all its network calls."""
    from edadm.sampling.trajectory import PIECE

    weights = (networks.parameters + networks.condition_parameters) * FP32
    features = feature_rows * networks.feature_elements
    work = max(batch * networks.forward_bytes, min(features, PIECE) * _COPY_BYTES)
    return Memory(weights, features * FP32 + work)
