"""A unit's tables, and the rows of a step from tables that are elsewhere."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from edadm.config.schema import Reconstruction
from edadm.learning.capture.arguments import Arguments
from edadm.learning.capture.data import UnitData
from edadm.learning.capture.tables import StepData
from edadm.learning.steps.descent import Descent
from edadm.learning.steps.parameters import learning
from edadm.learning.steps.replay import stepping
from edadm.learning.steps.schedules import row_table

from ..toys import KINDS, float_block, fresh_stream, quantized_block, unit_data

FAR = ("inputs", "others", "target", "layer:conv1", "layer:to_q")


@pytest.mark.parametrize("far", [frozenset(), frozenset(FAR), frozenset({"target", "layer:conv1"})])
def test_a_step_finds_its_rows_whatever_is_far(far: frozenset[str]) -> None:
    data = dataclasses.replace(unit_data("plain", float_block("plain"), 12, 1), far=far)
    drawn = row_table(6, 4, 12, fresh_stream("rows"))
    staged = StepData(data, drawn)
    for step in (0, 1, 5, 2):
        staged.bring(step)
        rows = drawn[step]
        for key, table in data.quantized.tensors.items():
            group = "inputs" if key == data.quantized.main else "others"
            assert torch.equal(staged.data.quantized.tensors[key][staged.rows(group, rows)], table[rows])
        assert torch.equal(
            staged.data.exact.tensors[0][staged.rows("inputs", rows)], data.exact.tensors[0][rows]
        )
        assert torch.equal(staged.data.target[staged.rows("target", rows)], data.target[rows])
        for name, table in data.layer_targets.items():
            assert torch.equal(
                staged.data.layer_targets[name][staged.rows(f"layer:{name}", rows)], table[rows]
            )
    assert len(staged.data.target) == (4 if "target" in far else 12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_learns_the_same_from_far_tables_bit_for_bit(kind: str) -> None:
    block, settings = (
        float_block(kind),
        Reconstruction(iterations=8, batch_size=4, weight_lr=0.05, scale_lr=1e-4),
    )
    found = []
    for far in (frozenset(), frozenset(FAR), frozenset({"inputs"})):
        data = dataclasses.replace(unit_data(kind, block, 12, 1), far=far)
        unit, stream = quantized_block(block, data), fresh_stream("far")
        with learning(unit, settings, stream) as (alphas, sizes):
            descent = Descent(unit, data, settings, alphas, sizes, stream)
            with stepping(descent) as step:
                for _ in range(4):
                    step()
                descent.restart()
                for _ in range(8):
                    step()
        found.append([descent.losses, *(alpha.detach() for alpha in alphas), *sizes.parameters])
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def test_networks_that_share_a_table_share_its_buffer() -> None:
    arguments = Arguments({0: torch.randn(6, 4)})
    data = UnitData(arguments, arguments, torch.randn(6, 4), {}, far=frozenset({"inputs"}))
    staged = StepData(data, row_table(3, 2, 6, fresh_stream("rows")))
    assert staged.data.quantized.tensors[0] is staged.data.exact.tensors[0]
    assert staged.data.target is data.target
