"""Collect: sampler runs of the float network, recorded with the distances between features that TDAC needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edadm.config.schema import Model
from edadm.config.stated import settings_of
from edadm.console import progress_bar
from edadm.stages.inputs.model import open_condition, open_prediction
from edadm.stages.inputs.provenance import code_of, digests, facts_of

if TYPE_CHECKING:
    import torch

MODEL = (
    "architecture",
    "conditioning",
    "schedule",
    "sampler",
    "prediction",
    "trajectories",
)  # settings of it


def run(
    model: Model,
    unet: Path,
    condition: Path | None,
    shard: int,
    output: Path,
    progress: Path,
    device: torch.device,
    label: str,
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
    """
    from edadm.artifacts import making, refuse_to_replace
    from edadm.config.sources import locate_prompts
    from edadm.networks.denoiser import Denoiser
    from edadm.networks.families import family_of
    from edadm.networks.load import load_unet
    from edadm.sampling.collect import collect, open_store

    inputs = digests(unet=unet, condition=condition, prompts=locate_prompts("given", model))
    made_from = {"model": settings_of(model, *MODEL), "shard": shard, "inputs": inputs}
    known = facts_of("trajectories", made_from, device)
    with making([output], known, code_of("collect", device), progress) as work:
        if work is None:
            return
        refuse_to_replace(output, known)
        contexts = open_condition(model, condition, model.trajectories.count, device)
        network = load_unet(model.architecture, unet, device)
        denoise = Denoiser(network, contexts, model.guidance, prediction=open_prediction(model))
        store = open_store(work.folder / "store.zarr", model, shard, contexts)
        with progress_bar(label, len(store.unfinished()), "batches") as advance:
            features = family_of(network).feature_module(network)
            collect(denoise, features, model, store, device, lambda: advance(1), contexts)
        store.seal(known)
        work.publish_folder(store.path)
