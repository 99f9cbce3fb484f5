"""The engine learns what a page of plain fp64 code learns from the same random streams."""

from __future__ import annotations

import copy

import pytest
import torch

from edadm.config.schema import Reconstruction
from edadm.learning.capture.data import UnitData
from edadm.learning.steps.descent import Descent
from edadm.learning.steps.parameters import learning
from edadm.nn.insert import activation_quantizers, quantized_layers

from .plain import learn_plainly
from .toys import KINDS, float_block, fresh_stream, quantized_block, unit_data

SPLITS = {"shortcut": {"conv_shortcut": 10}}  # as where a skip is concatenated
SETTINGS = Reconstruction(iterations=12, batch_size=6, weight_lr=0.05, scale_lr=1e-4, layer_weight=0.8)


def as_double(data: UnitData) -> UnitData:
    data = copy.deepcopy(data)
    for arguments in (data.quantized, data.exact):
        arguments.tensors = {key: tensor.double() for key, tensor in arguments.tensors.items()}
    data.target = data.target.double()
    data.layer_targets = {name: target.double() for name, target in data.layer_targets.items()}
    return data


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "changes", [{}, {"rounding_weight": 0.01}], ids=["as published", "with the regulariser"]
)
def test_losses_step_sizes_and_roundings_are_those_of_plain_code(
    kind: str, precision: torch.dtype, changes: dict[str, float]
) -> None:
    block, settings = float_block(kind), SETTINGS.model_copy(update=changes)
    data = unit_data(kind, block, 16, 1)
    unit = quantized_block(block, data, splits=SPLITS.get(kind))
    expected = learn_plainly(copy.deepcopy(unit), data, settings, fresh_stream("same"))
    unit, data = unit.to(precision), as_double(data) if precision == torch.float64 else data
    with learning(unit, settings, stream := fresh_stream("same")) as (alphas, sizes):
        descent = Descent(unit, data, settings, alphas, sizes, stream)
        for _ in range(settings.iterations):
            descent.iterate()
    exact = precision == torch.float64
    losses = torch.tensor(expected.losses)
    torch.testing.assert_close(
        descent.losses.double(), losses.double(), rtol=1e-5 if exact else 1e-2, atol=1e-7 if exact else 1e-4
    )
    for name, quantizer in activation_quantizers(unit).items():
        torch.testing.assert_close(
            quantizer.scale.double(), expected.step_sizes[name], rtol=1e-5 if exact else 1e-2, atol=0
        )
    for name, layer in quantized_layers(unit).items():
        layer.harden()
        different = (layer.codes != expected.roundings[name]).double().mean().item()
        assert different == 0 if exact else different < 0.005, name
