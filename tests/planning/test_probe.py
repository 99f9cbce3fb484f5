"""The probe times what a plan needs, and no more of it than a CPU can afford."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edadm.config.schema import Bits, Calibration, Config, Evaluation, LayerBits, Model, Reconstruction
from edadm.errors import EdadmError
from edadm.planning.estimate import seconds
from edadm.planning.plan import chosen_runs, plan_run, stages_of
from edadm.planning.probe import CPU_FLOPS, FEWEST_ROWS, Probe, extremes
from edadm.quant import ranges
from edadm.stages import collect, reconstruct, set_ranges
from edadm.stages.cost.networks import Networks
from edadm.stages.cost.work import Cost, Memory

from ..networks.families import tiny
from .fakes import learning

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config() -> Config:
    """A guided model with text at W4A8, learned by FBR; its images are made in bf16."""
    presets = {
        "calibrations": {"c": Calibration(size=4)},
        "bits": {"b": Bits(weights=4, range_batch_size=2, range_bins=16)},
    }
    runs = [{"model": "m", "variants": ["c/b/r"], "evaluation": "e"}]
    recon = {"r": Reconstruction(iterations=3, batch_size=4, chain_batch_size=4)}
    evaluation = {"e": Evaluation(images=2, batch_size=2, precision="bf16")}
    return Config(
        runs=runs, models={"m": tiny("sd14_coco")}, reconstructions=recon, evaluations=evaluation, **presets
    )


@pytest.fixture(scope="module")
def measured(config: Config) -> tuple[Probe, list[Cost]]:
    before, ranges.THRESHOLDS = ranges.THRESHOLDS, 5
    networks = Networks(config.models["m"])
    stages = stages_of(config.runs[0], config, networks)
    probe = Probe(networks, CPU)
    probe.measure(stages)
    ranges.THRESHOLDS = before
    return probe, stages


def test_every_stage_that_runs_a_network_can_be_estimated(measured: tuple[Probe, list[Cost]]) -> None:
    probe, stages = measured
    assert probe.rates.rows.keys() == {
        passes.key for stage in stages for passes in (*stage.passes, *stage.unit_rows)
    }
    assert all(value > 0 for value in probe.rates.rows.values())
    assert probe.rates.weight > 0
    assert probe.rates.decoded > 0
    for stage in stages:
        if stage.passes:
            assert seconds(stage, probe.rates) > 0


def test_the_cheapest_and_the_costliest_unit_of_each_kind_were_learned(
    measured: tuple[Probe, list[Cost]],
) -> None:
    probe, stages = measured
    stage = next(stage for stage in stages if stage.learning)
    found = probe.rates.units[stage.learning_key]
    assert [rate.unit.name for rate in found] == [unit.unit.name for unit in extremes(stage.learning)]
    assert {rate.unit.kind for rate in found} == {"res_block", "transformer", "layer"}
    assert all(rate.seconds > 0 and rate.overhead > 0 for rate in found)


def test_variants_that_quantize_other_layers_are_each_measured_where_they_learn(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 5)
    networks, settings = Networks(config.models["m"]), config.reconstructions["r"]
    in_float = {"*attentions*": LayerBits(weights=None, activations=None)}
    widths = [Bits(weights=4, range_bins=16, layers=in_float), Bits(weights=4, range_bins=16)]
    stages = [reconstruct.cost("m", networks, Calibration(size=4), bits, settings) for bits in widths]
    assert [any(found.unit.kind == "transformer" for found in stage.learning) for stage in stages] == [
        False,
        True,
    ]
    rates = Probe(networks, CPU).measure(stages)
    assert all(seconds(stage, rates) > 0 for stage in stages)
    names = [rate.unit.name for rate in rates.units[stages[1].learning_key]]
    assert len(names) == len(set(names))


def test_extremes_keep_their_order_and_a_kind_with_one_unit_gives_one() -> None:
    assert [found.unit.name for found in extremes(learning())] == ["a", "c", "block"]


def test_a_cpu_gets_as_many_rows_as_it_can_afford(config: Config) -> None:
    probe = Probe(Networks(config.models["m"]), CPU)
    assert probe.affordable(8, 1) == 8
    assert probe.affordable(8, CPU_FLOPS // 4) == 4
    assert probe.affordable(8, 10 * CPU_FLOPS) == FEWEST_ROWS
    assert probe.affordable(1, 10 * CPU_FLOPS) == 1


def test_disk_and_scoring_are_timed_where_they_can_be(config: Config, tmp_path: Path) -> None:
    probe, shapes = Probe(Networks(config.models["m"]), CPU), []
    probe.time_disk(tmp_path / "not" / "there" / "yet")
    assert probe.rates.written is not None
    assert probe.rates.written > 0
    assert list(tmp_path.iterdir()) == []
    probe.time_scoring(lambda images: shapes.append((images.shape, images.dtype)), 3, 16)
    assert probe.rates.scored is not None
    assert set(shapes) == {((FEWEST_ROWS, 3, 16, 16), torch.uint8)}


def test_a_plan_without_a_device_has_counts_alone(config: Config) -> None:
    plan = plan_run(config.runs[0], config, None)
    assert plan["probe"] is None
    assert [row["stage"] for row in plan["stages"]][:2] == ["convert-checkpoint", "collect-trajectories"]


@pytest.mark.parametrize("full", ["measure", "time_scoring"])
def test_a_device_with_too_little_memory_is_told_in_a_sentence(
    full: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(Memory, "needed", property(lambda self: 2**31 if self.kept else 2**30))
    monkeypatch.setattr(Probe, "measure", lambda self, stages: None)
    monkeypatch.setattr(Probe, full, out_of_memory)
    needs = r"whose largest stage, reconstruct, needs about 2\.0 GiB there; lower its batch sizes, plan with --device cpu, or .* --no-probe"
    with pytest.raises(EdadmError, match=needs):
        plan_run(config.runs[0], config, CPU, lambda evaluation: lambda images: images)


def test_runs_are_chosen_by_model_or_refused_in_a_sentence(config: Config) -> None:
    assert chosen_runs(config) == chosen_runs(config, ["m"]) == list(config.runs)
    with pytest.raises(ValueError, match="the configuration has no run of model 'x'; it has m"):
        chosen_runs(config, ["x"])
    with pytest.raises(ValueError, match="the configuration has no runs; add some under `runs`"):
        chosen_runs(Config())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device on this machine")
def test_a_gpu_is_timed_at_full_batches_and_after_its_kernels_are_compiled(
    model: Model, bits: Bits, settings: Reconstruction
) -> None:
    networks, calibration, device = Networks(model), Calibration(size=8), torch.device("cuda")
    stages = [collect.cost("m", networks), set_ranges.cost("m", networks, calibration, bits)]
    stages.append(reconstruct.cost("m", networks, calibration, bits, settings))
    probe = Probe(networks, device)
    rates = probe.measure(stages)
    assert probe.affordable(4096, 10**15) == 4096
    assert rates.device == torch.cuda.get_device_name()
    assert all(seconds(stage, rates) > 0 for stage in stages)
    assert max(rate.overhead for rate in rates.units[stages[2].learning_key]) < 5
