"""Calibration rows of any pipeline."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

import edadm
from edadm.calibration.select import SELECTORS
from edadm.errors import EdadmError
from edadm.library.calibrate import _statistics, _steps
from edadm.library.presets import preset
from edadm.networks.inputs import Rows

from .conftest import images, tiny_conditional

UNIFORM = {"base": "uniform", "size": 10, "held_out": 0}


def test_rows_are_what_the_network_was_given(unet):
    given: list[tuple[int, torch.Tensor]] = []
    handle = unet.register_forward_pre_hook(lambda _, args: given.append((int(args[1]), args[0].clone())))
    rows = edadm.calibrate(unet, images(unet), UNIFORM)
    handle.remove()
    assert rows.latents.shape == (10, 3, 8, 8)
    assert Counter(rows.timesteps.tolist()) == dict.fromkeys((800, 600, 400, 200, 0), 2)
    for latents, timestep in zip(rows.latents, rows.timesteps.tolist(), strict=True):
        states = dict(given)[timestep]
        assert any(torch.equal(latents, state) for state in states)
    assert not unet._forward_pre_hooks


def test_samples_of_a_step_are_of_different_images(unet):
    rows = edadm.calibrate(unet, images(unet, steps=2, count=5), UNIFORM)
    for timestep in set(rows.timesteps.tolist()):
        states = rows.latents[rows.timesteps == timestep]
        assert len(torch.unique(states, dim=0)) == len(states) == 5


def test_steps_get_samples_as_the_selector_says(unet, rows):
    calls: list[Rows] = []
    vectors: list[torch.Tensor] = []
    hooks = [
        unet.register_forward_pre_hook(
            lambda _, args: calls.append(
                Rows({"latents": args[0], "timesteps": torch.as_tensor(args[1]).expand(len(args[0]))})
            )
        ),
        unet.mid_block.attentions[0].register_forward_pre_hook(lambda _, args: vectors.append(args[0])),
    ]
    images(unet)()
    for hook in hooks:
        hook.remove()
    settings = preset("calibrations", {"base": "tdac", "size": 8, "held_out": 0})
    statistics = _statistics(calls, vectors, _steps(calls))
    pair = vectors[0] - vectors[3]
    assert statistics.distance[0, 3] == pytest.approx(pair.square().mean().item(), rel=1e-4)
    counts = SELECTORS["tdac"](statistics, settings).counts
    known = Counter(rows.timesteps.tolist())
    assert [known[timestep] for timestep in (800, 600, 400, 200, 0)] == counts.tolist()


def test_a_context_comes_along():
    unet = tiny_conditional()
    context = torch.randn(4, 5, 12)

    def run() -> None:
        for timestep in (900, 500, 100):
            unet(torch.randn(4, 4, 8, 8), torch.tensor(timestep), encoder_hidden_states=context)

    rows = edadm.calibrate(unet, run, {"base": "uniform", "size": 6, "held_out": 0})
    assert rows.tensors["context"].shape == (6, 5, 12)
    assert set(rows.timesteps.tolist()) == {900, 500, 100}


def test_what_cannot_be_learned_with_is_named():
    unet = tiny_conditional()

    def masked() -> None:
        given = torch.randn(1, 4, 8, 8), 1, torch.randn(1, 5, 12)
        unet(*given, encoder_attention_mask=torch.ones(1, 5))

    with pytest.raises(EdadmError, match="was called with encoder_attention_mask"):
        edadm.calibrate(unet, masked)
    with pytest.raises(EdadmError, match="no image was made"):
        edadm.calibrate(unet, lambda: None)
    assert not unet._forward_pre_hooks


def test_images_of_other_steps_are_refused(unet):
    def run() -> None:
        images(unet, steps=2)()
        images(unet, steps=3)()

    with pytest.raises(EdadmError, match="a later image has the timestep"):
        edadm.calibrate(unet, run, UNIFORM)
