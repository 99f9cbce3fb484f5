"""However many jobs share the work, the bytes are those of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from diffusers import UNet2DModel
from safetensors.torch import save_file

from edadm.config.files.scoring import scoring
from edadm.config.schema import Calibration, Evaluation, Model, Sampler, Trajectories
from edadm.config.sharding.shares import number
from edadm.stages import collect, evaluate, generate, select

COUNT, BATCH = 11, 2  # the last batch is half full
CPU = torch.device("cpu")
SHARDS = ("auto", 1, 2, 3, 5)


@pytest.fixture(scope="module")
def weights(float_unet: UNet2DModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "unet.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in float_unet.state_dict().items()}, file)
    return file


def without_the_rest(model: Model, shards: int | str) -> Model:
    recorded = Trajectories(count=COUNT, batch_size=BATCH, feature_rows=7, shards=shards)
    return model.model_copy(update={"trajectories": recorded, "sampler": Sampler(steps=2)})


def test_trajectories_and_what_is_chosen_from_them(model: Model, weights: Path, tmp_path: Path) -> None:
    found = []
    for shards in SHARDS:
        folder, preset = tmp_path / str(shards), without_the_rest(model, shards)
        stores = [folder / f"{shard}.zarr" for shard in range(number(shards))]
        for shard, store in enumerate(stores):
            collect.run(preset, weights, None, shard, store, folder / "progress", CPU, "collect")
        chosen, summary = folder / "calibration.safetensors", folder / "selection.json"
        select.run(stores, Calibration(size=9, held_out=2, radius=0.1), chosen, summary)
        groups = [zarr.open_group(store, mode="r") for store in stores]
        latents = np.concatenate([group["latents"][:] for group in groups])
        features = np.concatenate([group["distance"][:] for group in groups])
        found.append((latents.tobytes(), features.tobytes(), chosen.read_bytes(), summary.read_bytes()))
    assert len(found[0][0]) == 4 * COUNT * 2 * 3 * 16 * 16
    assert all(other == found[0] for other in found[1:])


def test_images_and_their_scores(model: Model, weights: Path, tmp_path: Path) -> None:
    found = []
    larger = {"image_size": 32, "attention_resolutions": (16,)}  # as the classifier sees them
    wide = model.architecture.model_copy(update=larger)
    preset = without_the_rest(model, 1).model_copy(update={"architecture": wide})
    for shards in SHARDS:
        settings = Evaluation(
            images=COUNT, batch_size=BATCH, shards=shards, scores=("fid", "inception_score")
        )
        files = [tmp_path / str(shards) / "samples" / f"{shard}.npy" for shard in range(number(shards))]
        for shard, file in enumerate(files):
            none = {"autoencoder": None, "condition": None}
            generate.run(preset, settings, weights, none, "simulated", shard, file, CPU, "generate")
        images = evaluate.Images(files)
        metrics = tmp_path / str(shards) / "metrics.json"
        evaluate.run(images, settings, scoring(settings), metrics, CPU, "evaluate")
        found.append((np.concatenate([np.load(file) for file in files]).tobytes(), metrics.read_bytes()))
    assert len(found[0][0]) == COUNT * 3 * 32 * 32
    assert all(other == found[0] for other in found[1:])
    assert b"shards" not in found[0][1]
