"""Scores of images that several jobs looked at are the bytes of those that one did."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edadm.artifacts import DamagedError, StaleError
from edadm.config.files.scoring import Scoring
from edadm.config.schema import Evaluation
from edadm.config.sharding.shares import shares
from edadm.errors import EdadmError
from edadm.metrics.extractors.cifar import LAYERS
from edadm.stages.evaluate import extract_features, run
from edadm.stages.inputs.scored import Images

CPU = torch.device("cpu")
IMAGES, SHARDS = 520, 4  # three batches of features, the last one small, that begin inside of shards
SETTINGS = Evaluation(images=IMAGES, batch_size=40, shards=SHARDS, scores=("fid", "inception_score"))


@pytest.fixture(scope="module")
def files() -> Scoring:
    """The bundled network and statistics."""
    from edadm.config.files.scoring import scoring

    return scoring(SETTINGS)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Drawn images as those of a variant, of its simulated network in fewer shards, and of full precision."""
    folder, drawn = tmp_path_factory.mktemp("images"), np.random.default_rng(14)
    full = drawn.integers(40, 200, (IMAGES, 3, 32, 32), dtype=np.uint8)
    sets = {"references": full, "simulated": full + 20, "samples": full + 18}
    written = {}
    for role, pixels in sets.items():
        count = 2 if role == "simulated" else SHARDS
        parts = shares(SETTINGS.model_copy(update={"shards": count}))
        written[role] = [folder / role / f"{shard}.npy" for shard in range(count)]
        for file, part in zip(written[role], parts, strict=True):
            file.parent.mkdir(exist_ok=True)
            np.save(file, pixels[part.start : part.stop])
    return Images(**written)


@pytest.fixture(scope="module")
def whole(images: Images, files: Scoring, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The scores of a single job."""
    output = tmp_path_factory.mktemp("whole") / "metrics.json"
    run(images, SETTINGS, files, output, CPU, "evaluate")
    return output.read_bytes()


@pytest.fixture(scope="module")
def parts(images: Images, files: Scoring, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What three jobs found."""
    folder = tmp_path_factory.mktemp("features")
    found = [folder / f"{job}_of_3.safetensors" for job in range(3)]
    for job, file in enumerate(found):
        extract_features(images, SETTINGS, files, job, 3, file, CPU, "extract-features")
    return found


def test_three_jobs_and_one_make_the_same_scores(
    whole: bytes, parts: list[Path], images: Images, files: Scoring, tmp_path: Path
) -> None:
    run(images, SETTINGS, files, tmp_path / "metrics.json", CPU, "evaluate", parts)
    assert (tmp_path / "metrics.json").read_bytes() == whole
    assert b'"parity"' in whole
    assert [len(load_file(part)["pooled"]) for part in parts] == [256, 256, 8]


def test_the_second_of_two_jobs_finds_what_two_of_three_do(
    parts: list[Path], images: Images, files: Scoring, tmp_path: Path
) -> None:
    extract_features(images, SETTINGS, files, 1, 2, tmp_path / "second", CPU, "extract-features")
    found, *others = (load_file(file) for file in (tmp_path / "second", *parts[1:]))
    assert found.keys() == {*LAYERS, "psnr", "parity_psnr", "parity_difference", "parity_bound"}
    for name, rows in found.items():
        assert len(rows) == IMAGES - 256
        assert torch.equal(rows, torch.cat([other[name] for other in others]))


def test_a_finished_part_is_not_looked_at_again(
    parts: list[Path], images: Images, files: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edadm.metrics.measure.measured", lambda *_: pytest.fail("it was done before"))
    before = parts[0].stat().st_mtime_ns, parts[0].read_bytes()
    extract_features(images, SETTINGS, files, 0, 3, parts[0], CPU, "extract-features")
    assert (parts[0].stat().st_mtime_ns, parts[0].read_bytes()) == before


def test_a_job_reads_only_the_shards_that_hold_its_images(
    parts: list[Path], images: Images, files: Scoring, tmp_path: Path
) -> None:
    """The last job has the last 8 of 520 images, which are in the last file of each set."""
    left = {role: list(of) for role, of in images.by_role.items()}
    for of in left.values():
        of[:-1] = [tmp_path / f"absent{number}.npy" for number in range(len(of) - 1)]
    extract_features(Images(**left), SETTINGS, files, 2, 3, tmp_path / "last", CPU, "extract-features")
    assert (tmp_path / "last").read_bytes() == parts[2].read_bytes()


def test_scores_refuse_what_was_found_of_other_images(
    parts: list[Path], images: Images, files: Scoring, tmp_path: Path
) -> None:
    others = tmp_path / "3.npy"
    pixels = np.load(images.samples[3])
    pixels[-1] += 1
    np.save(others, pixels)
    changed = Images([*images.samples[:3], others], images.references, images.simulated)
    told = (SETTINGS, files, tmp_path / "metrics.json", CPU, "evaluate")
    with pytest.raises(StaleError, match=r"1_of_3\.safetensors was made from another samples.3 "):
        run(changed, *told, parts)
    with pytest.raises(
        StaleError, match=r"1_of_3\.safetensors was made with images.begin: 256, here it is 0;"
    ):
        run(images, *told, [parts[1], parts[0], parts[2]])
    with pytest.raises(
        StaleError, match=r"2_of_3\.safetensors was made with images.begin: 512, here it is 256"
    ):
        run(images, *told, [parts[0], parts[2]])
    prepared = replace(files, resolution=32, reference=None)
    other = SETTINGS.model_copy(update={"scores": ("inception_score",)})
    with pytest.raises(
        StaleError, match=r"0_of_3\.safetensors was made with features.resolution: null, here it"
    ):
        run(images, other, prepared, *told[2:], parts)
    with pytest.raises(StaleError, match="made from other images or for other scores; make it again with"):
        run(Images(images.samples), *told, parts)


def test_a_damaged_part_is_named(parts: list[Path], images: Images, files: Scoring, tmp_path: Path) -> None:
    broken = tmp_path / "2_of_3.safetensors"
    shutil.copy(parts[2], broken)
    content = bytearray(broken.read_bytes())
    content[-1] ^= 1
    broken.write_bytes(content)
    told = (SETTINGS, files, tmp_path / "metrics.json", CPU, "evaluate")
    with pytest.raises(DamagedError, match=r"2_of_3\.safetensors is damaged .* again with `edadm extract-f"):
        run(images, *told, [*parts[:2], broken])


@pytest.mark.parametrize(
    ("images_of", "job", "jobs", "sentence"),
    [
        (IMAGES, 0, 4, "520 images, looked at 256 at once, are work for at most 3 jobs; --jobs is 4"),
        (IMAGES, 3, 3, "there is no job 3; jobs are counted from 0 to 2"),
        (600, 0, 1, r"1\.npy holds 120 images, its shard of the preset has 160; name the files"),
    ],
)
def test_a_part_that_is_not_there_is_refused(
    images_of: int, job: int, jobs: int, sentence: str, images: Images, files: Scoring, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"images": images_of})
    with pytest.raises(EdadmError, match=sentence):
        extract_features(images, settings, files, job, jobs, tmp_path / "features", CPU, "extract-features")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device on this machine")
def test_on_a_gpu_jobs_make_the_same_scores_as_well(images: Images, files: Scoring, tmp_path: Path) -> None:
    gpu = torch.device("cuda")
    run(images, SETTINGS, files, tmp_path / "whole.json", gpu, "evaluate")
    found = [tmp_path / f"{job}_of_2.safetensors" for job in range(2)]
    for job, file in enumerate(found):
        extract_features(images, SETTINGS, files, job, 2, file, gpu, "extract-features")
    run(images, SETTINGS, files, tmp_path / "metrics.json", CPU, "evaluate", found)
    assert (tmp_path / "metrics.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
