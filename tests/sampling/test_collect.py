"""Collection of trajectories and what is chosen from them do not depend on batches or shards (acceptance check 9)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from diffusers import UNet2DModel

from edadm.calibration.select import select, statistics_of
from edadm.config.schema import Calibration, Model
from edadm.networks.build import build_network
from edadm.sampling.collect import collect, open_store
from edadm.sampling.denoiser import Denoiser
from edadm.sampling.generate import run_sampler
from edadm.sampling.noise import ImageNoise

from ..networks.families import random_network, tiny

RADIUS = 0.05


def collected(
    unet: UNet2DModel, model: Model, folder: Path, batch_size: int, shards: int, eta: float = 0.0
) -> list[zarr.Group]:
    """The stores of all shards, collected in batches of that size."""
    trajectories = model.trajectories.model_copy(update={"batch_size": batch_size, "shards": shards})
    sampler = model.sampler.model_copy(update={"eta": eta})
    model = model.model_copy(update={"trajectories": trajectories, "sampler": sampler})
    groups = []
    for shard in range(shards):
        store = open_store(folder / f"{shard}.zarr", model, shard)
        collect(Denoiser(unet), unet.mid_block.attentions[0], model, store, torch.device("cpu"))
        assert store.unfinished() == []
        groups.append(zarr.open_group(folder / f"{shard}.zarr", mode="r"))
    return groups


@pytest.fixture(scope="module")
def reference(
    float_unet: UNet2DModel, model: Model, tmp_path_factory: pytest.TempPathFactory
) -> list[zarr.Group]:
    return collected(float_unet, model, tmp_path_factory.mktemp("reference"), batch_size=8, shards=1, eta=1.0)


@pytest.mark.parametrize(("batch_size", "shards"), [(3, 1), (1, 2), (4, 2)])
def test_the_calibration_set_is_the_same_for_any_batch_size_and_number_of_shards(
    batch_size: int,
    shards: int,
    reference: list[zarr.Group],
    float_unet: UNet2DModel,
    model: Model,
    tmp_path: Path,
) -> None:
    groups = collected(float_unet, model, tmp_path, batch_size, shards, eta=1.0)
    a, b = statistics_of(reference), statistics_of(groups)
    np.testing.assert_allclose(a.distance, b.distance, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(a.dissimilarity, b.dissimilarity, rtol=1e-3, atol=1e-3)
    settings = Calibration(size=7, radius=RADIUS)
    (one, allocation), (other, other_allocation) = select(reference, settings), select(groups, settings)
    assert allocation.counts.tolist() == other_allocation.counts.tolist()
    assert one["steps"].tolist() == other["steps"].tolist()
    assert one["timesteps"].tolist() == other["timesteps"].tolist()
    np.testing.assert_allclose(one["latents"], other["latents"], rtol=1e-3, atol=1e-3)


def test_stored_states_are_those_of_the_sampler(
    reference: list[zarr.Group], float_unet: UNet2DModel, model: Model
) -> None:
    states: list[torch.Tensor] = []
    sampler = model.sampler.model_copy(update={"eta": 1.0})
    noise = ImageNoise(model.trajectories.seed, [5], model.latent_shape)
    run_sampler(
        Denoiser(float_unet),
        sampler,
        model.schedule,
        noise,
        lambda step, timestep, latents: states.append(latents),
    )
    np.testing.assert_allclose(reference[0]["latents"][5], torch.cat(states).numpy(), rtol=1e-3, atol=1e-3)
    assert len(states) == sampler.steps


def test_only_the_first_rows_feed_the_features(reference: list[zarr.Group], model: Model) -> None:
    assert int(np.sum(reference[0]["feature_rows"][:])) == model.trajectories.feature_rows == 4


def test_a_killed_collection_goes_on_with_the_missing_batches(
    float_unet: UNet2DModel, model: Model, reference: list[zarr.Group], tmp_path: Path
) -> None:
    short = model.trajectories.model_copy(update={"batch_size": 4})
    model = model.model_copy(
        update={"trajectories": short, "sampler": model.sampler.model_copy(update={"eta": 1.0})}
    )
    store = open_store(tmp_path / "store.zarr", model, 0)

    def killed() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(
            Denoiser(float_unet),
            float_unet.mid_block.attentions[0],
            model,
            store,
            torch.device("cpu"),
            killed,
        )
    again, batches = open_store(tmp_path / "store.zarr", model, 0), []
    assert again.unfinished() == [1]
    collect(
        Denoiser(float_unet),
        float_unet.mid_block.attentions[0],
        model,
        again,
        torch.device("cpu"),
        lambda: batches.append(1),
    )
    assert len(batches) == 1
    np.testing.assert_allclose(again.group["latents"][:], reference[0]["latents"][:], rtol=1e-3, atol=1e-3)


class Labels:
    """The context of trajectory i is i."""

    def rows(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        return {"context": torch.stack([torch.full((1, 24), float(index)) for index in indices])}

    def unconditional(self) -> dict[str, torch.Tensor]:
        return {"context": torch.full((1, 1, 24), -1.0)}


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_a_guided_collection_keeps_contexts_and_features_of_both_halves(
    guidance: float, tmp_path: Path
) -> None:
    model = tiny("sd14_coco")
    assert model.conditioning is not None
    model = model.model_copy(
        update={"conditioning": model.conditioning.model_copy(update={"guidance": guidance})}
    )
    unet, told = random_network(build_network(model.architecture), 1), Labels()
    store = open_store(tmp_path / "0.zarr", model, 0, told)
    evaluations: list[int] = []
    handle = unet.register_forward_pre_hook(lambda _, inputs: evaluations.append(len(inputs[0])))
    denoise = Denoiser(unet, told, guidance)
    collect(denoise, unet.mid_block.attentions[0], model, store, torch.device("cpu"), told=told)
    handle.remove()
    halves = 1 if guidance == 1 else 2
    assert evaluations == [3 * halves] * 2 * (
        model.sampler.steps + 1
    )  # PLMS evaluates once more than it steps
    assert store.group["context"][:, 0, 0].tolist() == list(range(6))
    assert ("unconditional" in store.group) == (guidance != 1)
    assert store.group["feature_rows"][:].tolist() == [3 * halves, 0]
    assert store.group["distance"].shape == (2, 4, 4)
