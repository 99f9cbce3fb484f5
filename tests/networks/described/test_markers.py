"""Single files that say what they were trained for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edadm.config.schema import NoiseSchedule
from edadm.errors import EdadmError
from edadm.networks.convert import convert_checkpoint
from edadm.sampling.schedule import alphas_cumprod

from ..families import original_unet, tiny

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def network() -> State:
    """What a merged file of Stable Diffusion's kind holds of its U-Net."""
    state = original_unet(tiny("sd14_coco")).state_dict()
    return {f"model.diffusion_model.{name}": tensor.contiguous() for name, tensor in state.items()}


def convert(state: State, folder: Path, metadata: dict[str, str] | None = None, **changes: Any) -> State:
    save_file(state, folder / "merged.safetensors", metadata)
    return convert_checkpoint(tiny("sd14_coco", folder / "merged.safetensors", **changes))


@pytest.mark.parametrize(
    "metadata", [{"modelspec.prediction_type": "v"}, {"ss_v_parameterization": "True"}, None]
)
def test_a_network_of_velocities_is_told_by_its_file(
    metadata: dict[str, str] | None, network: State, tmp_path: Path
) -> None:
    state = network if metadata else network | {"v_pred": torch.zeros(0)}
    with pytest.raises(
        EdadmError, match=r"merged\.safetensors .*v.*, the preset prediction: eps; set prediction: v"
    ):
        convert(state, tmp_path, metadata)
    assert convert(state, tmp_path, metadata, prediction="v")
    if metadata is None:
        return
    said = {"modelspec.prediction_type": "epsilon"}
    with pytest.raises(EdadmError, match=r"modelspec\.prediction_type: epsilon, the preset prediction: v"):
        convert(network, tmp_path, said, prediction="v")


@pytest.mark.parametrize(
    ("marker", "metadata", "said"),
    [
        ("ztsnr", None, r"no signal \(ztsnr\)"),
        ("edm_mean", None, r"continuous noise levels \(EDM\)"),
        (None, {"modelspec.architecture": "stable-diffusion-v1/lora"}, "an addition to a network"),
    ],
)
def test_what_no_sampler_here_follows_is_refused(
    marker: str | None, metadata: dict[str, str] | None, said: str, network: State, tmp_path: Path
) -> None:
    state = network | {marker: torch.zeros(0)} if marker else network
    with pytest.raises(EdadmError, match=said):
        convert(state, tmp_path, metadata)


@pytest.mark.parametrize("name", ["betas", "alphas_cumprod"])
def test_the_betas_of_a_training_are_compared_with_the_preset(
    name: str, network: State, tmp_path: Path
) -> None:
    def buffer(schedule: NoiseSchedule) -> torch.Tensor:
        kept = alphas_cumprod(schedule)
        whole = torch.cat([torch.ones(1, dtype=torch.float64), kept])
        return (kept if name == "alphas_cumprod" else 1 - whole[1:] / whole[:-1]).float()

    published = tiny("sd14_coco").schedule
    assert convert(network | {name: buffer(published)}, tmp_path)
    for other in (
        NoiseSchedule(),
        published.model_copy(update={"timesteps": 4000}),
        published.model_copy(update={"end": 0.0125}),
    ):
        with pytest.raises(
            EdadmError,
            match=r"holds the betas .*, and the preset's are sqrt_linear 0\.00085 to 0\.012 in 1000 timesteps",
        ):
            convert(network | {name: buffer(other)}, tmp_path)


def test_half_precision_betas_are_taken_for_what_they_are(network: State, tmp_path: Path) -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert convert(
        network | {"betas": betas.half(), "alphas_cumprod": torch.cumprod(1 - betas, 0).half()}, tmp_path
    )
    assert convert(network | {"betas": torch.zeros(1000)}, tmp_path)  # never filled
    with pytest.raises(EdadmError, match="end without a signal"):
        convert(network | {"betas": torch.cat([betas[:-1], torch.ones(1)])}, tmp_path)
