"""What is damaged, stale or foreign in a results folder is named; what is not, is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edadm.artifacts import as_json, facts, intact, save_tensors
from edadm.artifacts.digest import rows_digest
from edadm.artifacts.metadata import UNITS, remember
from edadm.config.schema import Bits, Calibration, Config, Evaluation, Model, Trajectories
from edadm.config.sharding.shares import settled
from edadm.config.stated import OF_NOISE, settings_of
from edadm.report import verify
from edadm.report.verify import Results
from edadm.sampling.shards import open_finished
from edadm.sampling.store import TrajectoryStore

CONFIG = Config(
    models={"m": Model(checkpoint="none", trajectories=Trajectories(count=4, batch_size=2))},
    calibrations={"c": Calibration(size=2)},
    bits={"b": Bits(weights=4)},
)
MODEL = {"model": settings_of(CONFIG.models["m"], "architecture")}
BITS = {"bits": settings_of(CONFIG.bits["b"])}
SHARDS, EARLIER = 2, 3  # of trajectories and images, and of a run before, of which the last one is left


def tensors(path: Path, kind: str, made_from: dict[str, Any], value: float = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, {"a": torch.full((3,), value)}, facts(kind, made_from))
    return intact(path)


def store(folder: Path, unet: str, shard: int, shards: int, value: float = 1.0) -> Path:
    """A shard of trajectories, as `collect-trajectories` writes it."""
    model = settings_of(settled(CONFIG.models["m"], shards), "architecture", "trajectories")
    made = TrajectoryStore.create(folder / f"{shard}.zarr", 2 * min(shard, 1), 2, 2, [5, 0], (1, 2, 2))
    made.write(0, torch.full((2, 2, 1, 2, 2), float(value)), [])
    made.seal(facts("trajectories", {"model": model, "shard": shard, "inputs": {"unet": unet}}))
    return made.path


def images(folder: Path, weights: str, shard: int, shards: int, value: int = 0) -> Path:
    """A shard of images, as `generate` writes it."""
    path = folder / f"{shard}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.full((1, 3, 2, 2), value, dtype="uint8"))
    evaluation = settings_of(Evaluation(images=2, batch_size=1, shards=shards), *OF_NOISE)
    made_from = MODEL | {"shard": shard, "evaluation": evaluation, "inputs": {"weights": weights}}
    remember(path, facts("samples", made_from))
    return path


def scores(folder: Path, **files: list[Path]) -> None:
    """Scores of images, as `evaluate` writes them."""
    pixels = {role: rows_digest(shards) for role, shards in files.items()}
    known = facts("metrics", MODEL | {"inputs": pixels})
    (folder / "metrics.json").write_text(as_json({"fid": 1.0}, known))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A small run whose files hold next to nothing."""
    root, chosen = tmp_path / "results", {"calibration": settings_of(CONFIG.calibrations["c"])}
    unet = tensors(root / "m/fp32/unet.safetensors", "weights", {"part": "unet"} | MODEL)
    recorded = [store(root / "m/trajectories", unet, shard, SHARDS) for shard in range(SHARDS)]
    store(root / "m/trajectories", unet, EARLIER - 1, EARLIER)
    made_from = MODEL | chosen | {"inputs": {"trajectories": open_finished(recorded)[1], "unet": unet}}
    calibration = tensors(root / "m/c/calibration.safetensors", "calibration", made_from)
    (root / "m/c/selection.json").write_text(as_json({"counts": [1]}, facts("selection", made_from)))
    inputs = {"unet": unet, "calibration_set": calibration}
    ranges = tensors(root / "m/c/b/ranges.safetensors", "ranges", MODEL | BITS | {"inputs": inputs})
    learned = MODEL | BITS | {"inputs": inputs | {"ranges": ranges}}
    unit = tensors(root / "m/c/b/r/units/0/000_a.safetensors", "unit", learned)
    listed = as_json({"units": {"000_a.safetensors": unit}}, facts("units", learned | {"part": 0}))
    (root / "m/c/b/r/units/0" / UNITS).write_text(listed)
    references = [images(root / "m/fp32/samples", unet, shard, SHARDS) for shard in range(SHARDS)]
    images(root / "m/fp32/samples", unet, EARLIER - 1, EARLIER)
    scores(root / "m/fp32", samples=references)
    quantized = images(root / "m/c/b/r/samples", "of weights that are elsewhere", 0, 1)
    scores(root / "m/c/b/r", samples=[quantized], references=references)
    (root / "times").mkdir()
    (root / "times/a.json").write_text("{}")
    (root / "m/c/b/.r.progress").mkdir()
    (root / "m/c/b/.r.progress/a.safetensors").write_text("half")
    return root


def findings(results: Path, config: Config | None = CONFIG) -> list[tuple[str, str]]:
    return [
        (found.what, found.sentence.replace(f"{results}/", ""))
        for found in Results(results, config).findings()
    ]


def test_results_as_they_were_made_need_no_word(results: Path) -> None:
    there = Results(results, CONFIG)
    assert list(there.findings()) == []
    assert there.seen == 14


@pytest.mark.parametrize(
    ("made", "named", "stale"),
    [
        (store, "trajectories", ["m/c/calibration.safetensors", "m/c/selection.json"]),
        (images, "fp32/samples", ["m/c/b/r/metrics.json", "m/fp32/metrics.json"]),
    ],
)
def test_what_was_made_from_other_shards_is_stale(
    made: Callable[..., Path], named: str, stale: list[str], results: Path
) -> None:
    unet = intact(results / "m/fp32/unet.safetensors")
    shutil.rmtree(results / "m" / named / "2.zarr", ignore_errors=True)
    made(results / "m" / named, unet, EARLIER - 1, EARLIER, 2)
    assert findings(results) == []  # of an earlier number, from which nothing was made
    shutil.rmtree(results / "m" / named / "1.zarr", ignore_errors=True)
    made(results / "m" / named, unet, 1, SHARDS, 2)
    assert sorted(findings(results)) == [
        ("stale", f"{file} was made from another m/{named}; make it again") for file in stale
    ]


def test_images_that_several_scores_compare_with_are_read_once_for_all(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(verify, "rows_digest", lambda files: asked.extend(files) or rows_digest(files))
    assert findings(results) == []
    assert sorted(asked) == [
        results / "m/c/b/r/samples/0.npy",
        *sorted(results.glob("m/fp32/samples/[01].npy")),
    ]


def test_digests_of_single_shards_are_compared_too(results: Path) -> None:
    shards = sorted(results.glob("m/fp32/samples/[01].npy"))
    known = facts("metrics", MODEL | {"inputs": {"samples": [intact(shards[0]), "another"]}})
    (results / "m/fp32/metrics.json").write_text(as_json({"fid": 1.0}, known))  # as edadm 0.2.0 wrote it
    assert findings(results) == [
        ("stale", "m/fp32/metrics.json was made from another m/fp32/samples/1.npy; make it again")
    ]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "m/fp32/unet.safetensors",
            "m/trajectories/0.zarr/latents/c/0/0/0/0/0",
            "m/c/calibration.safetensors",
        ),
        *("m/c/selection.json", "m/c/b/ranges.safetensors", "m/c/b/r/units/0/000_a.safetensors"),
        *("m/fp32/samples/0.npy", "m/fp32/metrics.json"),
    ],
)
def test_one_flipped_bit_is_one_damaged_artifact(name: str, results: Path) -> None:
    data = bytearray((results / name).read_bytes())
    data[-2 if not name.endswith("json") else data.index(b"1")] ^= 1
    (results / name).write_bytes(bytes(data))
    ((what, sentence),) = findings(results)
    assert what == "damaged"
    assert sentence.startswith(name.split("/latents")[0])


def another_unet(results: Path) -> None:
    tensors(results / "m/fp32/unet.safetensors", "weights", {"part": "unet"} | MODEL, 1)


def another_set(results: Path) -> None:
    tensors(results / "m/c/calibration.safetensors", "calibration", {}, 1)


def moved_ranges(results: Path) -> None:
    shutil.copy(results / "m/c/b/ranges.safetensors", results / "m/c/calibration.safetensors")


def moved_samples(results: Path) -> None:
    for name in ("{}.npy", "{}.npy.made.json"):
        (results / "m/fp32/samples" / name.format(0)).rename(results / "m/fp32/samples" / name.format(5))


def stray(results: Path) -> None:
    (results / "m/notes.json").write_text("{}")


def lost_unit(results: Path) -> None:
    (results / "m/c/b/r/units/0/000_a.safetensors").unlink()


def torn_facts(results: Path) -> None:
    (results / "m/fp32/samples/0.npy.made.json").write_text('{"kind": "sam')


def lost_facts(results: Path) -> None:
    (results / "m/fp32/samples/0.npy.made.json").unlink()
    (results / "m/fp32/samples/.0.npy.lock").write_text('{"finished": "a"}')


def lost_metadata(results: Path) -> None:
    path = results / "m/c/calibration.safetensors"
    save_file(load_file(path), path)
    path.with_name(".calibration.safetensors.lock").write_text('{"finished": "a"}')


def lost_samples(results: Path) -> None:
    (results / "m/fp32/samples/0.npy").unlink()


def cut_images_of_an_earlier_version(results: Path) -> None:
    lost = results / "m/fp32/samples/0.npy.made.json"
    lost.unlink()
    lost.with_name("0.npy").write_bytes(lost.with_name("0.npy").read_bytes()[:-1])


CHANGES: dict[Callable[[Path], None], list[tuple[str, str]]] = {
    another_unet: [
        ("stale", "m/c/calibration.safetensors"),
        ("stale", "m/c/selection.json"),
        ("stale", "m/c/b/ranges.safetensors"),
        ("stale", "m/c/b/r/units/0"),
        *(("stale", f"m/fp32/samples/{shard}.npy") for shard in range(3)),
        *(("stale", f"m/trajectories/{shard}.zarr") for shard in range(3)),
    ],
    another_set: [("stale", "m/c/b/ranges.safetensors"), ("stale", "m/c/b/r/units/0")],
    moved_ranges: [("foreign", "m/c/calibration.safetensors")],
    moved_samples: [("foreign", "m/fp32/samples/5.npy")],
    stray: [("foreign", "m/notes.json")],
    lost_unit: [("damaged", "m/c/b/r/units/0/000_a.safetensors")],
    torn_facts: [("damaged", "m/fp32/samples/0.npy")],
    lost_facts: [("damaged", "m/fp32/samples/0.npy")],
    lost_metadata: [("damaged", "m/c/calibration.safetensors")],
    cut_images_of_an_earlier_version: [("damaged", "m/fp32/samples/0.npy")],
    lost_samples: [("damaged", "m/fp32/samples/0.npy")],
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_no_longer_belongs_together_is_named(change: Callable[[Path], None], results: Path) -> None:
    change(results)
    assert sorted((what, sentence.split()[0]) for what, sentence in findings(results)) == sorted(
        CHANGES[change]
    )


def test_a_changed_setting_makes_stale_what_it_shaped(results: Path) -> None:
    changed = CONFIG.model_copy(update={"bits": {"b": Bits(weights=3)}})
    found = findings(results, changed)
    assert [(what, sentence.split()[0]) for what, sentence in found] == [
        ("stale", "m/c/b/ranges.safetensors"),
        ("stale", "m/c/b/r/units/0"),
    ]
    assert "was made with bits.weights: 4, the configuration says 3; make it again" in found[0][1]
    assert findings(results, None) == []


def test_artifacts_that_say_nothing_are_taken_as_they_are(results: Path) -> None:
    path = results / "m/fp32/metrics.json"
    content = json.loads(path.read_text())
    del content["edadm"]
    path.write_text(json.dumps(content))
    assert findings(results) == []


def test_features_belong_to_the_shards_that_they_name(results: Path) -> None:
    samples, features = results / "m/fp32/samples/0.npy", results / "m/fp32/features/0_of_2.safetensors"
    inputs = {"samples": {"0": intact(samples)}, "weights": "of a network that scores"}
    tensors(features, "features", {"inputs": inputs})
    assert findings(results) == []
    inputs["samples"] = {"0": "0" * 64}
    tensors(features, "features", {"inputs": inputs})
    again = "m/fp32/features/0_of_2.safetensors was made from another m/fp32/samples/0.npy; make it again"
    assert findings(results) == [("stale", again)]


def test_errors_by_timestep_of_other_weights_are_stale(results: Path) -> None:
    path, unet = results / "m/c/b/r/errors.json", intact(results / "m/fp32/unet.safetensors")
    path.write_text(as_json({"rows": 2}, facts("errors", {"inputs": {"unet": unet}})))
    assert findings(results) == []
    path.write_text(as_json({"rows": 2}, facts("errors", {"inputs": {"unet": "another"}})))
    assert findings(results) == [
        ("stale", "m/c/b/r/errors.json was made from another m/fp32/unet.safetensors; make it again")
    ]
