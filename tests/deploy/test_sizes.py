"""Images larger than those of calibration, on every back-end."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file, save_file

import edadm
from edadm.deploy.checkpoint import digest, read_metadata
from edadm.deploy.checkpoint.header import compact_json
from edadm.deploy.diffusers import WEIGHTS, QuantizedUNet
from edadm.deploy.fuse.cpu import CpuAttnProcessor
from edadm.networks.weights import CheckpointError
from edadm.nn.attention import QuantizedAttnProcessor
from edadm.nn.insert import activation_quantizers

from .conftest import BACKENDS, Made, output

HAVE_THE_GRIDS = ("simulated", "copied", "cpu")


def larger(made: Made) -> dict[str, torch.Tensor]:
    """Twice the side, four times the tokens."""
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    return {"latents": latents} | {name: made[2][name][:2] for name in ("timesteps", "context")}


def without(path: Path, part: str) -> QuantizedUNet:
    unet = edadm.load(path)
    for name, quantizer in activation_quantizers(unet).items():
        if name.endswith("softmax_quantizer") and part in name:
            quantizer.enabled = False
    return unet


@pytest.mark.filterwarnings("ignore:this network was calibrated with latents of 8 x 8")
def test_attention_between_more_pixels_leaves_its_weights_off_their_grid(made: Made) -> None:
    rows = larger(made)
    expected = output(without(made[1], "attn1"), rows)
    for backend in ("simulated", "copied"):
        assert torch.equal(output(BACKENDS[backend](made[1]), rows), expected)
    assert not torch.equal(output(without(made[1], "attn"), rows), expected)  # a context keeps its grids
    unlimited = edadm.load(made[1])
    for processor in unlimited.attn_processors.values():
        processor.most_keys = None
    assert not torch.equal(output(unlimited, rows), expected)
    assert torch.equal(output(unlimited, made[2]), output(edadm.load(made[1]), made[2]))


@pytest.mark.parametrize("most", [None, 15, 16])
def test_integers_on_a_cpu_mean_the_same(most: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    attention = Attention(32, heads=2, dim_head=16, bias=True, norm_num_groups=8).requires_grad_(False)
    x, processor = torch.randn(2, 32, 4, 4, generator=generator), QuantizedAttnProcessor(8, 3)
    for name, quantizer in processor.named_children():
        middle = 0.0 if name == "softmax_quantizer" else 128.0
        quantizer.set_grid(torch.tensor([0.1 if middle == 0 else 0.02]), torch.tensor([middle]))
    found = {}
    for kind in (lambda: processor, lambda: CpuAttnProcessor(processor)):
        processor.most_keys = most
        attention.set_processor(kind())
        found[kind] = attention(x)
    torch.testing.assert_close(*found.values(), rtol=1e-4, atol=1e-4)
    processor.most_keys, processor.softmax_quantizer.enabled = None, most != 15
    attention.set_processor(processor)
    assert torch.equal(attention(x), next(iter(found.values())))


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_said_once_where_there_are_such_grids(backend: str, made: Made) -> None:
    unet = BACKENDS[backend](made[1])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for rows in (made[2], larger(made), larger(made)):
            output(unet, rows)
    said = [warning for warning in said if "was calibrated with latents" in str(warning.message)]
    assert len(said) == (backend in HAVE_THE_GRIDS)


def changed(path: Path, to: Path, size: object) -> Path:
    facts, tensors = read_metadata(path) | {"calibrated_at": size}, load_file(path)
    facts = {key: value for key, value in facts.items() if value is not None}
    facts["sha256"] = digest(tensors, facts)
    save_file(tensors, to, {"edadm": compact_json(facts)})
    return to


def test_a_file_that_does_not_say_its_size_has_no_rule(made: Made, tmp_path: Path) -> None:
    assert read_metadata(made[1])["calibrated_at"] == [8, 8]
    unet = edadm.load(changed(made[1], tmp_path / "old.safetensors", None))
    assert all(processor.most_keys is None for processor in unet.attn_processors.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output(unet, larger(made))
    unet.save_pretrained(tmp_path)
    assert "calibrated_at" not in read_metadata(tmp_path / WEIGHTS)


@pytest.mark.parametrize("size", [[8], [8, 0], [8, "a"], 8, [8, 8, 8]])
def test_a_size_that_is_none_is_refused(size: object, made: Made, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="describes no network that can be built"):
        edadm.load(changed(made[1], tmp_path / "bad.safetensors", size))
