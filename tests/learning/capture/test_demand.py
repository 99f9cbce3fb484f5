"""Bytes that reconstruction needs, against those that it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from edadm.config.load import load_config
from edadm.config.schema import Model, Reconstruction
from edadm.learning import chain
from edadm.learning.capture.data import UnitData, inner_layers
from edadm.learning.capture.demand import demand, unit_bytes, work_bytes
from edadm.learning.capture.pausing import PausingNetwork
from edadm.learning.capture.tables import INPUTS, OTHERS, TARGET
from edadm.learning.engine import UnitReport, learn_unit
from edadm.networks.build import build_network
from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.units.trace import trace_units
from edadm.networks.units.unit import Unit
from edadm.nn.insert import quantized_layers
from edadm.offload.demand import UnitBytes
from edadm.offload.limits import GIB, Limits, on_disk
from edadm.offload.tracker import StorageTracker

from ...conftest import as_rows
from ...networks.families import PUBLISHED, published
from ..runs import Calibration, UnitsInMemory, learned


def by_name(units: list[UnitBytes]) -> dict[str, UnitBytes]:
    return {one.name: one for one in units}


@pytest.fixture
def predicted(float_unet: UNet2DModel, calibration: Calibration, settings: Reconstruction) -> list[UnitBytes]:
    return unit_bytes(float_unet, trace_units(float_unet), as_rows(calibration)[:1], settings)


def test_shapes_alone_tell_the_same(
    architecture: Architecture, predicted: list[UnitBytes], settings: Reconstruction
) -> None:
    with torch.device("meta"):
        unet = build_network(architecture).requires_grad_(False)
        inputs = (torch.zeros(1, architecture.in_channels, 16, 16), torch.zeros(1, dtype=torch.long))
        units = trace_units(unet)
        found = unit_bytes(unet, units, as_rows(inputs), settings)
    for one, other in zip(found, predicted, strict=True):
        assert one.name == other.name
        assert one.tables == other.tables
        assert one.waiting == pytest.approx(other.waiting, abs=1024), (
            "tables of the time embedding may be made anew"
        )


def test_tables_have_the_bytes_that_units_learn_from(
    predicted: list[UnitBytes],
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[dict[str, int]] = []

    def listening_learn(module: nn.Module, data: UnitData, *others: object) -> UnitReport:
        main = data.quantized.main
        arguments = [
            (key, tensor) for stream in (data.quantized, data.exact) for key, tensor in stream.tensors.items()
        ]
        sizes = {
            INPUTS: sum(tensor.nbytes for key, tensor in arguments if key == main),
            OTHERS: sum(tensor.nbytes for key, tensor in arguments if key != main),
            TARGET: data.target.nbytes,
        }
        seen.append(sizes | {f"layer:{name}": tensor.nbytes for name, tensor in data.layer_targets.items()})
        return learn_unit(module, data, *others)

    monkeypatch.setattr(chain, "learn_unit", listening_learn)
    learned(
        float_unet, gridded(), calibration, settings.model_copy(update={"iterations": 1}), UnitsInMemory()
    )
    rows = len(calibration[0])
    assert seen == [{name: rows * size for name, size in one.tables.items()} for one in predicted]
    whole = demand(float_unet, trace_units(float_unet), as_rows(calibration), settings)
    assert whole.rows == rows
    assert whole.of_tables(whole.largest_unit()) == max(sum(sizes.values()) for sizes in seen)


def test_waiting_passes_hold_what_was_predicted(
    predicted: list[UnitBytes], float_unet: UNet2DModel, calibration: Calibration
) -> None:
    network = PausingNetwork(float_unet, [one.name for one in predicted])
    rows = len(calibration[0])
    with StorageTracker() as tracker:
        waiting = network.start(as_rows(calibration))
    for one in predicted:
        assert tracker.bytes_alive() == pytest.approx(rows * one.waiting / 2, rel=0.02, abs=1024), one.name
        with tracker:
            waiting.advance()
    network.close()
    skip = by_name(predicted)["mid_block.resnets.0"]
    assert skip.waiting > 4 * skip.tables[INPUTS], "the skips wait, too"


def test_what_a_pass_takes_on_its_way_and_a_step_while_it_learns_is_more_than_what_waits(
    predicted: list[UnitBytes],
) -> None:
    for one in predicted:
        assert one.forward >= one.waiting / 2
        assert one.step >= one.tables[TARGET]


def test_inputs_of_the_float_network_are_kept_once(
    float_unet: UNet2DModel, calibration: Calibration, settings: Reconstruction
) -> None:
    units = trace_units(float_unet)
    chained = demand(float_unet, units, as_rows(calibration), settings, rows=100)
    changed = settings.model_copy(update={"method": "fbr_float_inputs"})
    alone = demand(float_unet, units, as_rows(calibration), changed, rows=100)
    one, other = chained.largest_unit(), alone.largest_unit()
    assert one.name == other.name
    once = other.tables[INPUTS] + other.tables[OTHERS]
    assert chained.of_tables(one) - alone.of_tables(other) == 100 * once
    assert chained.of_passes(one) == 2 * alone.of_passes(other)
    assert chained.of_peak() >= chained.of_tables(one)


def shapes_of(model: Model) -> Rows:
    """One row of a network's inputs."""
    return InputSpec.of(model).zeros(1, "meta")


def test_stable_diffusion_needs_what_its_shapes_say() -> None:
    """A first feed-forward layer at 64x64 has 2,560 outputs per token; 512 rows of these are 21.5 GB."""
    model = published("sd14_coco")
    with torch.device("meta"):
        unet = build_network(model.architecture).requires_grad_(False)
        units = trace_units(unet)
        found = demand(unet, units, shapes_of(model), Reconstruction(), rows=512)
    largest = found.largest_unit()
    assert {unit.name: unit.kind for unit in units}[largest.name] == "transformer"
    assert largest.tables["layer:ff.net.0.proj"] == 4096 * 2560 * 4
    assert largest.tables[INPUTS] == 2 * 4096 * 320 * 4
    assert largest.tables[OTHERS] == 2 * 77 * 768 * 4


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_documented_predictions_are_those_of_the_presets(name: str) -> None:
    page = (Path(__file__).parents[3] / "docs" / "memory.md").read_text()
    documented = next(line for line in page.splitlines() if line.startswith(f"| {name} |")).split("|")[2:-1]
    config, model, family = load_config(), published(name), name.split("_")[1]
    settings = config.reconstructions[f"seed_{family}_w4"]
    samples = config.calibrations[f"seed_{family}{'_w4' if family == 'cifar10' else ''}"].size
    with torch.device("meta"):
        unet = build_network(model.architecture).requires_grad_(False)
        found = demand(
            unet, trace_units(unet), shapes_of(model), settings, samples * (2 if model.guidance > 1 else 1)
        )
    sizes = (
        found.of_tables(found.largest_unit()),
        max(found.of_passes(unit) for unit in found.units),
        found.of_peak(),
        found.of_work(settings.batch_size, settings.chain_batch_size),
        on_disk(found, Limits(10 * GIB, 24 * GIB, Path())),
    )
    assert int(documented[0].replace(",", "")) == found.rows
    assert [float(cell) for cell in documented[1:]] == [round(size / GIB, 1) for size in sizes]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["conv1", "conv2"]),
        ({"layer_weight": 0.0}, []),
        ({"method": "block"}, []),
        ({"without_layer_errors": ("res_block",)}, []),
        ({"without_layer_errors": ("attention",)}, ["conv1", "conv2"]),
    ],
)
def test_layers_with_errors_of_their_own(changes: dict[str, object], expected: list[str]) -> None:
    unit = Unit("a.b", "res_block", ("a.b.conv1", "a.b.conv2", "a.b.conv_shortcut"))
    assert inner_layers(unit, Reconstruction.model_validate(changes)) == expected
    assert inner_layers(Unit("a", "layer", ("a",)), Reconstruction()) == []


def test_the_work_is_that_of_a_batch_or_a_step_beside_rounded_weights_and_codes(
    predicted: list[UnitBytes],
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
) -> None:
    unet = gridded()
    needed = demand(float_unet, trace_units(float_unet), as_rows(calibration), settings)
    weights = sum(layer.weight.numel() for layer in quantized_layers(unet).values())
    steps = [one.parameters + int(5.0 * one.step) * settings.batch_size for one in predicted]
    passes = [one.forward * settings.chain_batch_size for one in predicted]
    assert work_bytes(needed, unet, settings) == 5 * weights + max(*steps, *passes)
