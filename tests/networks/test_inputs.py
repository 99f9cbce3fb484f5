"""Named inputs of a network, and which of them a network takes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from edadm.networks.build import build_network
from edadm.networks.families import network_call
from edadm.networks.inputs import InputSpec, Rows

from .families import random_network, tiny


def counted(*numbers: int) -> Rows:
    """Rows that can be told apart."""
    first = torch.tensor(numbers, dtype=torch.float).reshape(-1, 1, 1, 1)
    context = first.reshape(-1, 1, 1).expand(-1, 2, 3)
    return Rows({"latents": first, "timesteps": torch.tensor(numbers), "context": context})


def numbers(rows: Rows) -> tuple[Sequence[float], ...]:
    context = rows.tensors["context"][:, 0, 0]
    return rows.latents.flatten().tolist(), rows.timesteps.tolist(), context.tolist()


def test_rows_are_those_of_a_file_that_a_network_can_take() -> None:
    given = {"held_out_latents": torch.ones(1, 1), "timesteps": torch.arange(3), "latents": torch.zeros(3, 1)}
    rows = Rows.of(given | {"steps": torch.arange(3)})
    assert list(rows.tensors) == ["latents", "timesteps"]
    assert len(rows) == 3
    assert list(Rows.of(given, "held_out_").tensors) == ["latents"]
    assert Rows.of({"steps": torch.arange(3)}).tensors == {}


def test_tensors_with_other_numbers_of_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one number of rows, not .*'latents': 2, 'timesteps': 3"):
        Rows({"latents": torch.zeros(2, 1), "timesteps": torch.arange(3)})


def test_batches_in_order_put_together_again_are_the_rows() -> None:
    rows = counted(5, 1, 4, 2, 3)
    batches = rows.split(2)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert numbers(Rows.concatenated(batches)) == numbers(rows)
    assert numbers(rows[torch.tensor([3, 0])]) == ([2, 5], [2, 5], [2, 5])
    assert numbers(rows[3:]) == ([2, 3], [2, 3], [2, 3])


def test_unconditional_rows_stand_first() -> None:
    rows = counted(4, 2).guided({"context": torch.full((1, 2, 3), -1.0)})
    assert numbers(rows) == ([4, 2, 4, 2], [4, 2, 4, 2], [-1, -1, 4, 2])
    assert numbers(counted(4, 2).guided({}))[2] == [4, 2, 4, 2]


def test_bytes_and_types() -> None:
    rows = counted(1, 2)
    assert rows.nbytes == 2 * (4 + 8 + 6 * 4)
    half = rows.cast(torch.bfloat16)
    assert (half.latents.dtype, half.timesteps.dtype) == (torch.bfloat16, torch.long)
    assert half.nbytes == 2 * (2 + 8 + 6 * 2)
    assert rows.to("meta").device == torch.device("meta")


def test_inputs_of_a_model_fit_its_network() -> None:
    model = tiny("sd14_coco")
    inputs = InputSpec.of(model)
    assert inputs.shapes == {"latents": (4, 8, 8), "timesteps": (), "context": (16, 24)}
    smallest = inputs.zeros()
    assert smallest.nbytes == 4 * 4 * 8 * 8 + 8 + 4 * 16 * 24
    rows = inputs.random(2, "cpu")
    assert rows.timesteps.tolist() == [500, 500]
    assert rows.latents.is_contiguous(memory_format=torch.channels_last)
    assert rows.latents.std() > 0.5
    unet = random_network(build_network(model.architecture), 1)
    with torch.no_grad():
        expected = unet(rows.latents, rows.timesteps, rows.tensors["context"]).sample
        assert torch.equal(network_call(unet, rows), expected)
