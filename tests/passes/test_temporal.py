"""What sees the timestep alone is learned first, at all timesteps, and never again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.config.schema import Bits, Reconstruction
from edadm.deploy.grids import quantized_copy, set_grids
from edadm.errors import EdadmError
from edadm.networks.units.temporal import temporal_part, units_of
from edadm.networks.units.trace import trace_units
from edadm.nn.insert import activation_quantizers, quantized_layers

from ..learning.runs import Calibration, Reports, UnitsInMemory, learned, same, state

TFMQ = Reconstruction(
    method="tfmq",
    iterations=1,
    unit_iterations={"temporal": 40},
    batch_size=4,
    weight_lr=0.5,
    scale_lr=1e-4,
    chain_batch_size=4,
)
Finished = tuple[nn.Module, Reports, UnitsInMemory]


@pytest.fixture(scope="module")
def finished(
    float_unet: UNet2DModel, ranges: dict[str, Tensor], bits: Bits, calibration: Calibration
) -> Finished:
    unet, unit_store = quantized_copy(float_unet, bits), UnitsInMemory()
    set_grids(unet, ranges)
    return unet, learned(float_unet, unet, calibration, TFMQ, unit_store), unit_store


def projections(unet: nn.Module) -> list[str]:
    return [name for name, _ in unet.named_modules() if name.endswith("time_emb_proj")]


def test_embedding_and_projections_are_one_unit_and_in_no_other(float_unet: UNet2DModel) -> None:
    temporal, *others = units_of(float_unet, TFMQ)
    embedding = ["time_embedding.linear_1", "time_embedding.linear_2"]
    assert (temporal.name, temporal.kind) == ("temporal", "temporal")
    assert list(temporal.layers) == [*embedding, *projections(float_unet)]
    plain = {unit.name: unit for unit in trace_units(float_unet)}
    assert [unit.name for unit in others] == [name for name in plain if name not in embedding]
    for unit in others:
        assert unit.layers == tuple(name for name in plain[unit.name].layers if "time_emb_proj" not in name)


def test_its_output_is_what_the_network_adds_to_its_res_blocks(
    float_unet: UNet2DModel, calibration: Calibration
) -> None:
    added: list[Tensor] = []
    handles = [
        float_unet.get_submodule(name).register_forward_hook(lambda *given: added.append(given[2]))
        for name in projections(float_unet)
    ]
    part, found = temporal_part(float_unet), []
    with torch.no_grad():
        found = part(part.features(calibration[1]))
        by_module = list(added)
        added.clear()
        float_unet(*calibration)
    for handle in handles:
        handle.remove()
    assert torch.equal(found, torch.cat(by_module, dim=1))
    for output in added:  # in order of execution, the middle before the decoder
        assert any(torch.equal(output, other) for other in by_module)


def test_its_error_falls_and_is_the_sum_over_projections_at_every_timestep(
    finished: Finished, float_unet: UNet2DModel, calibration: Calibration
) -> None:
    unet, reports, _ = finished
    unit, report = reports[0]
    assert [one for one, _ in reports] == units_of(float_unet, TFMQ)
    assert report.after < 0.9 * report.before
    assert report.flipped > 0
    exact, part = temporal_part(float_unet), temporal_part(unet)
    given = exact.features(calibration[1].unique())
    with torch.no_grad():
        off = (part(given) - exact(given)).square().sum(1).mean().item()
    assert report.after == pytest.approx(off, rel=1e-4)
    assert unit.layers == exact.layers


def test_its_layers_stay_as_they_are_while_their_blocks_learn(
    finished: Finished, ranges: dict[str, Tensor]
) -> None:
    unet, _, unit_store = finished
    temporal, layers = unit_store.kept[0], quantized_layers(unet)
    names = ["time_embedding.linear_1", "time_embedding.linear_2", *projections(unet)]
    learned_names = ["embedding.linear_1", "embedding.linear_2"]
    learned_names += [f"projections.{index}" for index in range(len(names) - 2)]
    for name, own in zip(names, learned_names, strict=True):
        assert torch.equal(layers[name].codes, temporal.codes[own]), name
        scale = activation_quantizers(unet)[f"{name}.input_quantizer"].scale
        assert torch.equal(scale, temporal.scales[f"{own}.input_quantizer"]), name
        assert not torch.equal(scale, ranges[f"{name}.input_quantizer.scale"]), name
    block = "down_blocks.0.resnets.0"
    assert unit_store.kept[2].codes.keys() >= {"conv1", "time_emb_proj"}
    moved = layers[f"{block}.conv1"].input_quantizer.scale
    assert not torch.equal(moved, ranges[f"{block}.conv1.input_quantizer.scale"])
    assert all(layer.codes is not None and layer.alpha is None for layer in layers.values())


def test_a_run_that_finds_its_first_units_finished_ends_like_an_undisturbed_one(
    finished: Finished,
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
) -> None:
    expected, reports, full = finished
    first = len(reports) - 2
    unet, rest = gridded(), UnitsInMemory({index: full.kept[index] for index in range(first)})
    assert learned(float_unet, unet, calibration, TFMQ, rest) == reports
    assert rest.put_indices == list(range(first, len(reports)))
    assert same(state(unet), state(expected))


def test_a_network_that_joins_something_to_its_timestep_is_refused() -> None:
    unet = UNet2DModel(
        8, block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        norm_num_groups=4, num_class_embeds=3, layers_per_block=1,
    )  # fmt: skip
    with pytest.raises(
        EdadmError, match=r"no layers of this network see the timestep alone.*take one of fbr"
    ):
        units_of(unet, TFMQ)
