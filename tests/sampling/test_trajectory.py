"""Distances between steps, and the store of trajectories."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from edadm.sampling.store import TrajectoryStore
from edadm.sampling.trajectory import StepRecorder, recording_inputs, step_matrices


def features(seed: int, steps: int = 5, rows: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(rows, 6, 2, 3, generator=generator)
    return [start + 0.3 * step * torch.randn(start.shape, generator=generator) for step in range(steps)]


@given(st.integers(0, 2**31))
@hypothesis_settings(max_examples=20, deadline=None)
def test_gram_matrices_equal_the_naive_loops(seed: int) -> None:
    maps = features(seed)
    distance, dissimilarity = step_matrices(maps)
    for i, a in enumerate(maps):
        for j, b in enumerate(maps):
            squares = (a.double() - b.double()).square()
            assert distance[i, j].item() / squares.numel() == pytest.approx(squares.mean().item(), abs=1e-6)
            cosine = F.cosine_similarity(a.double(), b.double(), dim=1, eps=1e-6)
            assert dissimilarity[i, j].item() == pytest.approx((1 - cosine).sum().item(), abs=1e-6)


@pytest.mark.parametrize("piece", [1, 300])
def test_matrices_of_pieces_add_up_to_those_of_the_whole(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = features(3)
    whole = step_matrices(maps)
    monkeypatch.setattr("edadm.sampling.trajectory.PIECE", piece)
    for matrix, expected in zip(step_matrices(maps), whole, strict=True):
        torch.testing.assert_close(matrix, expected, rtol=1e-9, atol=1e-7)


def test_matrices_are_symmetric_with_an_exact_zero_diagonal() -> None:
    for matrix in step_matrices(features(1)):
        assert torch.equal(matrix.diagonal(), torch.zeros(5, dtype=torch.float64))
        torch.testing.assert_close(matrix, matrix.T)
        assert (matrix >= 0).all()


def test_batches_of_rows_add_up() -> None:
    maps = features(2, rows=7)
    whole = step_matrices(maps)
    parts = [step_matrices([m[rows] for m in maps]) for rows in (slice(0, 3), slice(3, 7))]
    for index in range(2):
        torch.testing.assert_close(parts[0][index] + parts[1][index], whole[index])


def test_a_position_without_any_feature_does_not_divide_by_zero() -> None:
    maps = features(3)
    maps[0][0, :, 0, 0] = 0
    assert all(torch.isfinite(matrix).all() for matrix in step_matrices(maps))


def test_the_inputs_of_a_module_are_recorded_row_by_row_and_only_inside_the_context() -> None:
    module, x = nn.Conv2d(2, 2, 1), torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    with recording_inputs(module, 3) as calls:
        module(x)
        module(2 * x)
    module(3 * x)
    assert len(calls) == 2
    assert torch.equal(calls[0], x[:3])
    assert torch.equal(calls[1], 2 * x[:3])


def test_a_recorder_stacks_the_states_of_a_run() -> None:
    recorder, states = StepRecorder(), [torch.full((2, 1, 1, 1), float(i)) for i in range(3)]
    for step, state in enumerate(states):
        recorder(step, 9 - step, state)
    assert recorder.stacked().shape == (2, 3, 1, 1, 1)
    assert recorder.stacked()[1, :, 0, 0, 0].tolist() == [0, 1, 2]


def test_a_store_knows_which_batches_are_missing(tmp_path: Path) -> None:
    store = TrajectoryStore.create(tmp_path / "store.zarr", 10, 5, 2, [900, 400, 0], (1, 2, 2))
    assert (store.first_run, store.runs, store.batch_size) == (10, 5, 2)
    assert store.unfinished() == [0, 1, 2]
    latents = torch.randn(2, 3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    store.write(1, latents, features(0, steps=3, rows=2))
    store.write(2, latents[:1], [])
    again = TrajectoryStore(tmp_path / "store.zarr")
    assert again.unfinished() == [0]
    assert torch.equal(torch.from_numpy(again.group["latents"][2:4]), latents)
    assert torch.equal(torch.from_numpy(again.group["latents"][4:]), latents[:1])
    assert again.group["feature_rows"][:].tolist() == [0, 2, 0]
    assert again.group["feature_elements"][:].tolist() == [0, 2 * 6 * 2 * 3, 0]
    assert again.group["timesteps"][:].tolist() == [900, 400, 0]


def test_with_guidance_the_first_rows_of_both_halves_are_recorded() -> None:
    module, x = nn.Identity(), torch.arange(6.0)[:, None]
    with recording_inputs(module, 2, runs=3) as calls:
        module(x)
    assert calls[0].flatten().tolist() == [0, 1, 3, 4]


def test_of_a_step_with_two_evaluations_the_second_counts() -> None:
    calls: list[torch.Tensor] = []
    recorder = StepRecorder(calls)
    for step, evaluations in enumerate((2, 1, 1)):
        recorder(step, 9 - step, torch.zeros(1, 1, 1, 1))
        calls += [torch.tensor([step, evaluation]) for evaluation in range(evaluations)]
    assert [call.tolist() for call in recorder.last_of_each_step()] == [[0, 1], [1, 0], [2, 0]]


def test_a_store_carries_conditions(tmp_path: Path) -> None:
    context = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([[1025, 0], [1026, 0]])
    nothing = {"context": torch.zeros(4, 6), "time_ids": torch.tensor([7, 8])}
    place = tmp_path / "store.zarr"
    store = TrajectoryStore.create(place, 0, 3, 2, [5, 0], (1, 2, 2), nothing, is_guided=True)
    store.write(0, torch.zeros(2, 2, 1, 2, 2), [], {"context": context, "time_ids": sizes})
    again = TrajectoryStore(place).group
    assert torch.equal(torch.from_numpy(again["context"][:2]), context)
    assert again["context"].shape == (3, 4, 6)
    assert torch.equal(torch.from_numpy(again["time_ids"][:2]), sizes)
    assert torch.equal(torch.from_numpy(again["unconditional"][:]), nothing["context"])
    assert again["unconditional_time_ids"][:].tolist() == [7, 8]
    assert store.unfinished() == [1]
    again = TrajectoryStore(place, mode="r+")
    again.group["time_ids"][1] = 5
    assert again.unfinished() == [0, 1]


def test_a_store_keeps_what_nothing_is_only_where_it_is_asked_for(tmp_path: Path) -> None:
    store = TrajectoryStore.create(
        tmp_path / "store.zarr", 0, 3, 2, [5, 0], (1, 2, 2), {"context": torch.ones(4, 6)}
    )
    assert "unconditional" not in store.group
    assert store.group["context"].shape == (3, 4, 6)
