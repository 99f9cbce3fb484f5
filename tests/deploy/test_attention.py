"""Calls of pipelines that exchange attention, and masks, on every back-end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0
from torch import Tensor

import edadm
from edadm.deploy.diffusers import WEIGHTS, QuantizedUNet
from edadm.errors import EdadmError
from edadm.nn.insert import activation_quantizers

from .conftest import BACKENDS, Made, output

KEPT: dict[str, Callable[[Any], object]] = {
    "slices": lambda unet: unet.set_attention_slice("auto"),
    "a slice": lambda unet: unet.set_attention_slice(1),
    "no slices": lambda unet: [
        m.set_attention_slice(None) for m in unet.modules() if type(m).__name__ == "QuantizedAttention"
    ],
    "the default": lambda unet: unet.set_default_attn_processor(),
    "its own": lambda unet: unet.set_attn_processor(dict(unet.attn_processors)),
    "no xformers": lambda unet: unet.disable_xformers_memory_efficient_attention(),
    "unfused": lambda unet: unet.unfuse_qkv_projections(),
    "a backend": lambda unet: unet.set_attention_backend("native"),
}
REFUSED: dict[str, Callable[[Any], object]] = {
    "a processor": lambda unet: unet.set_attn_processor(AttnProcessor2_0()),
    "processors": lambda unet: unet.set_attn_processor(
        {name: AttnProcessor2_0() for name in unet.attn_processors} | {"x": None}
    ),
    "IP-Adapter": lambda unet: unet._load_ip_adapter_weights([{}]),
    "adapters": lambda unet: unet.set_attn_processor(IPAdapterAttnProcessor2_0(8, 8)),
    "fused": lambda unet: unet.fuse_qkv_projections(),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_calls_of_pipelines_keep_the_grids_or_are_refused(
    backend: str, made: Made, networks: dict[str, QuantizedUNet], tmp_path: Path
) -> None:
    _, path, rows = made
    unet = networks[backend]
    expected, grids = output(unet, rows), list(activation_quantizers(unet))
    for call in KEPT.values():
        call(unet)
    for call in REFUSED.values():
        with pytest.raises(EdadmError, match="a quantized network"):
            call(unet)
    assert torch.equal(output(unet, rows), expected)
    assert list(activation_quantizers(unet)) == grids
    if unet.backend == "simulated":
        unet.save_pretrained(tmp_path)
        assert (tmp_path / WEIGHTS).read_bytes() == path.read_bytes()


def test_xformers_is_refused_whether_installed_or_not(made: Made) -> None:
    with pytest.raises(EdadmError, match="not by xformers"):
        edadm.load(made[1]).enable_xformers_memory_efficient_attention()


def test_a_network_without_one_of_its_grids_is_not_saved(made: Made, tmp_path: Path) -> None:
    unet = edadm.load(made[1])
    attention = next(module for module in unet.modules() if type(module).__name__ == "QuantizedAttention")
    del attention.processor
    attention.processor = AttnProcessor2_0()
    with pytest.raises(
        EdadmError, match=r"has lost 4 of its grids, such as .*attn1\.processor\.key_quantizer; load it again"
    ):
        unet.save_pretrained(tmp_path)
    assert not (tmp_path / WEIGHTS).exists()


def test_networks_in_full_precision_stay_ordinary(made: Made) -> None:
    unet = copy.deepcopy(made[0])
    expected = output(unet, made[2])
    unet.set_attn_processor(AttnProcessor2_0())
    unet.fuse_qkv_projections()
    torch.testing.assert_close(output(unet, made[2]), expected, rtol=1e-4, atol=1e-4)


def masks(rows: dict[str, Tensor], seed: int) -> Tensor:
    """Which tokens count, at least one of each image."""
    kept = torch.rand(rows["context"].shape[:2], generator=torch.Generator().manual_seed(seed)) < 0.5
    kept[:, seed % kept.shape[1]] = True
    return kept.long()


def test_masks_mean_the_same_on_every_backend_as_in_full_precision(
    made: Made, networks: dict[str, QuantizedUNet]
) -> None:
    unet, _, rows = made
    mask = masks(rows, 1)
    expected = output(unet, rows, encoder_attention_mask=mask)
    assert (expected - output(unet, rows)).square().mean() > 0.01 * expected.square().mean()
    found = {
        backend: output(network, rows, encoder_attention_mask=mask) for backend, network in networks.items()
    }
    assert torch.equal(found["copied"], found["simulated"])
    error = (found["simulated"] - expected).square().mean()
    assert (found["cpu"] - found["simulated"]).square().mean() < 0.5 * error
    with without_operand_grids(networks["simulated"]) as simulated:  # which integers on a GPU have not
        found["simulated"] = output(simulated, rows, encoder_attention_mask=mask)
    for backend in ("gpu", "gpu, not fused"):
        assert (found[backend] - found["simulated"]).square().mean() < 0.5 * error, backend


@contextmanager
def without_operand_grids(network: QuantizedUNet) -> Iterator[QuantizedUNet]:
    quantizers = [
        quantizer for name, quantizer in activation_quantizers(network).items() if ".processor." in name
    ]
    for quantizer in quantizers:
        quantizer.enabled = False
    yield network
    for quantizer in quantizers:
        quantizer.enabled = True


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["attention_mask", "encoder_attention_mask"])
def test_masks_of_another_length_are_refused_in_one_sentence(
    backend: str, name: str, made: Made, networks: dict[str, QuantizedUNet]
) -> None:
    with pytest.raises(EdadmError, match="an attention mask of 4 x 3 does not fit 4 samples of"):
        output(networks[backend], made[2], **{name: torch.ones(4, 3)})


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_number_in_gives_no_number_out_of_that_image_alone(
    backend: str, made: Made, networks: dict[str, QuantizedUNet]
) -> None:
    unet = networks[backend]
    expected = output(unet, made[2])
    places = {"latents": (1, 0, 0, 0), "context": (1, 0, 0), "timesteps": (1,)}
    for (name, place), bad in zip(places.items(), (torch.inf, -torch.inf, torch.nan), strict=True):
        rows = {key: tensor.float() for key, tensor in made[2].items()}
        rows[name] = rows[name].clone()
        rows[name][place] = bad
        found = output(unet, rows)
        assert found[1].isnan().all()
        torch.testing.assert_close(found[[0, 2, 3]], expected[[0, 2, 3]], rtol=1e-3, atol=1e-3)
    assert output(unet, made[2] | {"latents": made[2]["latents"] * torch.nan}).isnan().all()
    assert (
        unet(*(made[2][key] for key in ("latents", "timesteps", "context")), return_dict=False)[0]
        .isfinite()
        .all()
    )
