"""What stages do, against closed forms and the published numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from edadm.config.load import load_config
from edadm.config.schema import Bits, Calibration, Config, Evaluation, Model, Reconstruction
from edadm.planning.plan import stages_of
from edadm.sampling.collect import open_store
from edadm.stages import collect, generate, reconstruct, set_ranges
from edadm.stages.cost.networks import Networks
from edadm.stages.cost.work import Cost, Memory, evaluations_per_run

from ..networks.families import PUBLISHED, tiny
from ..planning.fakes import published_networks

WORKFLOW = Path(__file__).parents[2] / "workflow" / "published"

# Evaluations of rows while collecting and generating, calibration rows, learning steps, bytes of states
# (method, 1.1, 1.4, 2.1 and 4.1).
RUNS = {
    "ddim_cifar10": (102_400, 5_000_000, 1024, 38 * 5000, 1.26e9),
    "ldm4_bedroom": (204_800, 10_000_000, 1024, 48 * 5000, 10.07e9),
    "ldm8_church": (512_000, 25_000_000, 1024, 60 * 5000, 8.39e9),
    "ldm4_imagenet": (2 * 20_480, 2_000_000, 2048, 80 * 1000, 1.01e9),
    "sd14_coco": (2 * 51 * 256, 2 * 51 * 10_000, 512, 80 * 1000, 0.90e9),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_runs_have_the_published_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in (collect, set_ranges, reconstruct, generate):  # slow, and tested with a tiny network
        monkeypatch.setattr(stage, "memory", lambda *_: Memory())
    config = load_config(WORKFLOW / f"{name}.yaml")
    stages = stages_of(config.runs[0], config, published_networks(name))
    collected, generated, rows, steps, states = RUNS[name]
    of = {
        kind: [stage for stage in stages if stage.name == kind]
        for kind in dict.fromkeys(stage.name for stage in stages)
    }
    assert [stage.evaluations for stage in of["collect-trajectories"]] == [collected]
    assert of["collect-trajectories"][0].disk == pytest.approx(states, rel=5e-3)
    assert [stage.evaluations for stage in of["generate"]] == [generated] * 3
    assert [stage.evaluations for stage in of["set-ranges"]] == [rows] * 2
    assert [stage.steps for stage in of["reconstruct"]] == [steps] * 2
    assert [stage.evaluations for stage in of["reconstruct"]] == [2 * rows] * 2  # a pass of either network
    side = {"ddim_cifar10": 32, "sd14_coco": 512}.get(name, 256)
    images = 10_000 if name == "sd14_coco" else 50_000
    assert {stage.disk for stage in of["generate"]} == {images * 3 * side**2}
    assert len(of["select-calibration"]) == (
        2 if name == "ddim_cifar10" else 1
    )  # shared where both variants have the same
    assert sum(stage.scored for stage in stages) == 3 * images
    features = of.get("extract-features", [])  # of sets that take several jobs, in single precision
    width = 2048 + 2023 + (1008 if name == "ddim_cifar10" else 0)
    assert [(stage.disk, stage.shares) for stage in features] == [(4 * images * width, 4)] * len(features)
    assert len(features) == (0 if name == "sd14_coco" else 3)


def test_plms_evaluates_once_more_than_it_steps_and_guidance_doubles_rows() -> None:
    model = tiny("sd14_coco")
    assert evaluations_per_run(model) == 5
    stage = collect.cost("m", Networks(model))
    assert stage.evaluations == 6 * 5 * 2
    assert stage.passes[0].calls == 2 * 5
    assert stage.passes[0].batch == 2 * 3
    assert evaluations_per_run(tiny("ldm4_bedroom")) == 4


def test_states_and_contexts_on_disk_have_the_bytes_and_files_that_were_counted(tmp_path: Path) -> None:
    model = tiny("ldm4_imagenet")
    uneven = model.trajectories.model_copy(
        update={"count": 7, "batch_size": 2, "shards": 2, "feature_rows": 2}
    )
    model = model.model_copy(update={"trajectories": uneven})

    class Contexts:
        def rows(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
            return {"context": torch.ones(len(indices), 1, 12)}

        def unconditional(self) -> dict[str, torch.Tensor]:
            return {"context": torch.ones(1, 1, 12)}

    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(2, 5, 2, 2, generator=generator) for _ in range(4)]
    total, files = 0, 2  # locks
    for shard in range(2):
        store = open_store(tmp_path / f"{shard}.zarr", model, shard, Contexts())
        for batch in store.unfinished():
            runs = min(2, store.runs - 2 * batch)
            store.write(batch, torch.ones(runs, 4, 3, 8, 8), features, Contexts().rows(range(runs)))
        chunks = [tmp_path / f"{shard}.zarr" / name / "c" for name in ("latents", "context")]
        total += sum(file.stat().st_size for folder in chunks for file in folder.rglob("*") if file.is_file())
        files += 1 + sum(1 for _ in store.path.rglob("*"))
    planned = collect.cost("m", Networks(model))
    assert total == planned.disk
    assert files == planned.files


def a_config(**changes: object) -> Config:
    """Four variants of a tiny model that share what they can."""
    model = tiny("ldm8_church")
    calibration = {"a": Calibration(size=5, held_out=1), "b": Calibration(size=4)}
    recon = {
        "fbr": Reconstruction(iterations=7, unit_iterations={"conv_*": 9}, batch_size=4, chain_batch_size=4)
    }
    recon |= {
        "none": Reconstruction(method="none"),
        "apart": Reconstruction(method="fbr_float_inputs", jobs=3, iterations=2),
    }
    runs = [
        {"model": "m", "variants": ["a/w4/fbr", "a/w4/none", "b/w4/fbr", "a/w4/apart"], "evaluation": "e"}
    ]
    settings = {
        "runs": runs,
        "models": {"m": model},
        "calibrations": calibration,
        "bits": {"w4": Bits(weights=4, range_batch_size=2)},
        "reconstructions": recon,
        "evaluations": {"e": Evaluation(images=10, shards=3, batch_size=2)},
    }
    return Config(**(settings | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def networks() -> Networks:
    """Those of `a_config`'s model."""
    return Networks(tiny("ldm8_church"))


def by_name(stages: list[Cost]) -> dict[tuple[str, str], Cost]:
    return {(stage.name, stage.of.removeprefix("m").removeprefix("/")): stage for stage in stages}


def test_variants_share_stages_and_are_compared_with_full_precision(networks: Networks) -> None:
    config = a_config()
    stages = stages_of(config.runs[0], config, networks)
    assert [f"{stage.name} {stage.of}" for stage in stages] == [
        "convert-checkpoint m",
        "collect-trajectories m",
        "select-calibration m/a",
        "select-calibration m/b",
        "set-ranges m/a/w4",
        "set-ranges m/b/w4",
        *(f"reconstruct m/{name}" for name in ("a/w4/fbr", "a/w4/none", "b/w4/fbr", "a/w4/apart")),
        *(
            f"{stage} m/{name}"
            for stage in ("generate", "evaluate")
            for name in ("fp32", "a/w4/fbr", "a/w4/none", "b/w4/fbr", "a/w4/apart")
        ),
    ]
    alone = a_config(runs=[{"model": "m", "variants": ["fp32"], "evaluation": "e"}])
    assert [stage.name for stage in stages_of(alone.runs[0], alone, networks)] == [
        "convert-checkpoint",
        "generate",
        "evaluate",
    ]


def test_reconstruction_counts_passes_errors_and_steps_of_its_method(networks: Networks) -> None:
    config = a_config()
    found = by_name(stages_of(config.runs[0], config, networks))
    fbr = found["reconstruct", "a/w4/fbr"]
    convolutions = sum(unit.unit.name.startswith("conv_") for unit in fbr.learning)
    assert convolutions == 2
    assert fbr.steps == 7 * len(fbr.learning) + 2 * convolutions
    assert [(p.kind, p.rows, p.batch, p.calls) for p in fbr.passes] == [
        ("float", 6, 4, 2),
        ("simulated", 6, 4, 2),
    ]
    assert fbr.unit_rows[0].rows == 3 * 6
    assert {unit.rows for unit in fbr.learning} == {4}
    apart = found["reconstruct", "a/w4/apart"]
    assert [(p.kind, p.rows) for p in apart.passes] == [("float", 3 * 6)]  # each job walks the float network
    assert {unit.rows for unit in apart.learning} == {5}
    none = found["reconstruct", "a/w4/none"]
    assert (none.evaluations, none.steps) == (0, 0)
    assert none.disk == fbr.disk
    half = config.reconstructions["fbr"].model_copy(update={"bias_correction": True})
    arguments = ("m", networks, config.calibrations["a"], config.bits["w4"], half)
    assert reconstruct.cost(*arguments).unit_rows[0].rows == 6 * 6
    some = reconstruct.cost(*arguments, chosen=[fbr.learning[3].unit])
    assert some.steps == 7
    assert some.unit_rows[0].rows < 6 * 6


def test_shards_have_whole_batches(networks: Networks) -> None:
    config = a_config()
    generated = by_name(stages_of(config.runs[0], config, networks))["generate", "fp32"]
    assert generated.evaluations == 10 * 4
    assert generated.passes[0].calls == (1 + 2 + 2) * 4  # shards of 2, 4 and 4 images
    assert generated.decoded == generated.images == 10
    assert generated.disk == 10 * 3 * 16 * 16


def test_memory_is_that_of_weights_activations_and_what_waits(networks: Networks) -> None:
    config = a_config()
    found = by_name(stages_of(config.runs[0], config, networks))
    quantized, fbr = networks.quantized(config.bits["w4"]), found["reconstruct", "a/w4/fbr"]
    assert fbr.memory.weights == 4 * networks.parameters + 5 * quantized.weights
    settings = config.reconstructions["fbr"]
    need = networks.demand(settings, 6)
    assert (fbr.memory.kept, fbr.memory.work) == (
        need.of_peak(),
        need.of_work(settings.batch_size, settings.chain_batch_size),
    )
    assert fbr.memory.total == fbr.memory.weights + fbr.memory.kept + fbr.memory.work
    simulated, plain = found["generate", "a/w4/fbr"].memory, found["generate", "fp32"].memory
    assert simulated.weights - plain.weights == quantized.weights
    half = generate.cost(
        "m", networks, config.evaluations["e"].model_copy(update={"precision": "fp16"}), None
    ).memory
    assert half.weights - plain.weights == 2 * networks.parameters


def test_smoothing_costs_one_more_evaluation_of_the_float_network(model: Model) -> None:
    plain, smoothed = (
        set_ranges.cost("m", Networks(model), Calibration(size=6), bits)
        for bits in (Bits(range_batch_size=4), Bits(range_batch_size=4, smoothing=0.5))
    )
    assert smoothed.passes[1:] == plain.passes
    assert (smoothed.passes[0].kind, smoothed.passes[0].rows, smoothed.passes[0].calls) == ("float", 6, 2)
    assert smoothed.disk > plain.disk


def test_a_pattern_that_matches_no_layer_is_refused(model: Model) -> None:
    bits = Bits(layers={"conv_inn": {"weights": 8, "activations": 8}})  # type: ignore[dict-item]
    with pytest.raises(
        ValueError, match="the pattern 'conv_inn' matches no layer of the network; remove it or mend its name"
    ):
        set_ranges.cost("m", Networks(model), Calibration(), bits)
