"""Which part of the work a shard has, and how many there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edadm.artifacts import facts
from edadm.artifacts.metadata import remember
from edadm.config.load import load_config
from edadm.config.schema import Evaluation, Model, Run, Trajectories
from edadm.config.sharding.scored import BATCH, MOST_IMAGES, holding, jobs_for, part_of
from edadm.config.sharding.shares import number, refuse_undecided, settled, shard_range, share, shares
from edadm.config.sharding.split import LEAST_CALLS, MOST_CALLS, Division, Split, shards_for
from edadm.errors import EdadmError


def test_a_number_left_open_is_asked_for_where_nobody_can_be_told_of_it() -> None:
    runs = [
        {"model": "cifar10_small", "variants": ["fp32", "tdac_small/w8a8/none"]},
        {"model": "ldm4_bedroom", "variants": ["fp32"], "evaluation": "bedroom_published"},
        {"model": "ldm8_church", "variants": ["x/y/z"], "evaluation": "bedroom_published"},
    ]
    config = load_config().model_copy(update={"runs": [Run.model_validate(run) for run in runs]})
    refused = "`shards: N`, for evaluations.bedroom_published, models.ldm8_church.trajectories$"
    with pytest.raises(EdadmError, match=refused):
        refuse_undecided(config)
    refuse_undecided(config.model_copy(update={"runs": config.runs[:1]}))


@given(st.integers(1, 500), st.integers(1, 20), st.integers(1, 7))
def test_shards_are_contiguous_and_nearly_equal_and_begin_with_a_batch(
    total: int, shards: int, batch_size: int
) -> None:
    parts = [shard_range(total, shards, shard, batch_size) for shard in range(shards)]
    assert [index for part in parts for index in part] == list(range(total))
    batches = [-(-len(part) // batch_size) for part in parts]
    assert max(batches) - min(batches) <= 1
    if shards <= -(-total // batch_size):
        assert all(part.start % batch_size == 0 and len(part) for part in parts)


@pytest.mark.parametrize(
    ("images", "shards", "jobs"),
    [(256, 1, 1), (256, 8, 1), (MOST_IMAGES, 50, 1), (50_000, "auto", 1), (50_000, 2, 2), (50_000, 50, 4)],
)
def test_large_sets_in_shards_are_looked_at_by_several_jobs(images: int, shards: Any, jobs: int) -> None:
    assert jobs_for(Evaluation(images=images, shards=shards)) == jobs


@given(st.integers(1, 3000), st.integers(1, 12), st.integers(1, 70), st.integers(1, 40))
def test_jobs_look_at_whole_batches_in_the_shards_that_hold_them(
    images: int, jobs: int, batch_size: int, shards: int
) -> None:
    jobs = min(jobs, -(-images // BATCH))
    parts = [part_of(images, jobs, job) for job in range(jobs)]
    assert [index for part in parts for index in part] == list(range(images))
    assert all(part.start % BATCH == 0 for part in parts)
    made = [shard_range(images, shards, shard, batch_size) for shard in range(shards)]
    for part in parts:
        held = holding(part, made)
        assert {index for number in held for index in made[number]} >= set(part)
        assert all(set(made[number]) & set(part) for number in (held[0], held[-1]))


def test_there_is_no_other_shard() -> None:
    with pytest.raises(EdadmError, match="there is no shard 2; shards are counted from 0 to 1"):
        shard_range(10, 2, 2, 1)


def test_auto_is_one_until_a_machine_is_asked() -> None:
    recorded = Trajectories(count=10, batch_size=4)
    model = Model(checkpoint="x", trajectories=recorded)
    assert (recorded.shards, number(recorded.shards), share(recorded, 0)) == ("auto", 1, range(10))
    assert shares(settled(model, 3).trajectories) == [range(4), range(4, 8), range(8, 10)]
    evaluation = Evaluation(images=5, batch_size=2)
    assert [settled(evaluation, n).shards for n in (1, 4)] == [1, 4]
    assert settled(Evaluation(shards=7), 2).shards == 7
    assert settled(model.model_copy(update={"trajectories": Trajectories(shards=5)})).trajectories.shards == 5


@pytest.mark.parametrize(
    ("devices", "total", "batch_size", "calls", "expected"),
    [
        (1, 50_000, 500, 100, 1),
        (4, 50_000, 500, 100, 4),
        (8, 256, 32, 100, 1),  # less than what two jobs are started for
        (4, 10_000, 500, 100, 4),
        (100, 10_000, 500, 100, 2000 // LEAST_CALLS),
        (100, 2, 1, LEAST_CALLS * 9, 2),  # no more than batches
        (3, 50_000, 10, 50, 3 * 5),  # 250,000 calls, of which a job has MOST_CALLS
        (0, 1, 1, 1, 1),
    ],
)
def test_the_number_goes_by_devices_and_work(
    devices: int, total: int, batch_size: int, calls: int, expected: int
) -> None:
    assert shards_for(devices, total, batch_size, calls) == expected
    assert -(-total // batch_size) * calls <= max(expected * MOST_CALLS, LEAST_CALLS * 18)


def decided(split: Split, name: str, folder: Path, wanted: int, total: int = 40, batch_size: int = 2) -> int:
    return split.shards(name, folder, "evaluation", Division(wanted, total, batch_size))


def test_what_was_begun_keeps_its_number(tmp_path: Path) -> None:
    note, folder = tmp_path / "model/.shards.json", tmp_path / "samples"
    layout = {"total": 40, "batch_size": 2}
    first = Split(note)
    assert decided(first, "fp32", folder, 2) == 2
    first.keep()
    assert json.loads(note.read_text()) == {"fp32": {"shards": 2, **layout}}
    assert decided(Split(note), "fp32", folder, 4) == 4  # nothing is there
    assert decided(Split(note, decides=False), "fp32", folder, 1) == 2  # a job elsewhere
    folder.mkdir()
    (folder / "1.npy").touch()
    (folder / ".0.npy.lock").touch()
    later = Split(note)
    assert decided(later, "fp32", folder, 4) == 2
    assert decided(later, "other", tmp_path / "absent", 4) == 4
    later.keep()
    assert json.loads(note.read_text()) == {"fp32": {"shards": 2, **layout}, "other": {"shards": 4, **layout}}


@pytest.mark.parametrize(
    ("noted", "wanted", "total", "batch_size", "expected"),
    [
        ({"shards": 20, "total": 40, "batch_size": 2}, 8, 16, 2, 8),  # most of 20 would be empty
        ({"shards": 1, "total": 16, "batch_size": 2}, 4, 50_000, 2, 4),  # a quick test came first
        ({"shards": 20, "total": 40, "batch_size": 2}, 4, 40, 4, 4),
        ({"shards": 20, "total": 40, "batch_size": 2}, 4, 40, 2, 20),
        (20, 3, 40, 2, 3),
        ({"shards": "20", "total": 40, "batch_size": 2}, 3, 40, 2, 3),
        ({"shards": 20, "total": 40}, 3, 40, 2, 3),
        ({"total": 40, "batch_size": 2}, 3, 40, 2, 3),
    ],
)
@pytest.mark.parametrize("decides", [True, False])
def test_another_total_or_batch_size_is_divided_anew(
    noted: object, wanted: int, total: int, batch_size: int, expected: int, decides: bool, tmp_path: Path
) -> None:
    note, other = tmp_path / "note", {"shards": 3, "total": 9, "batch_size": 2}
    note.write_text(json.dumps({"fp32": noted, "other": other}))
    (tmp_path / "0.npy").touch()
    split = Split(note, decides)
    assert decided(split, "fp32", tmp_path, wanted, total, batch_size) == expected
    split.keep()
    now = {"shards": expected, "total": total, "batch_size": batch_size}
    assert json.loads(note.read_text()) == {"fp32": now, "other": other}


def test_trajectories_in_progress_are_begun(tmp_path: Path) -> None:
    note, folder, wanted = tmp_path / "note", tmp_path / "trajectories", Division(8, 40, 2)
    first = Split(note)
    assert first.shards("trajectories", folder, "model", wanted) == 8
    first.keep()
    folder.mkdir()
    (folder / ".3.zarr.lock").touch()
    assert Split(note).shards("trajectories", folder, "model", wanted._replace(shards=4)) == 4
    (folder / ".3.progress").mkdir()
    assert Split(note).shards("trajectories", folder, "model", wanted._replace(shards=4)) == 8
    note.unlink()
    assert Split(note).shards("trajectories", folder, "model", wanted._replace(shards=4)) == 4


def test_results_without_a_note_say_their_number_themselves(tmp_path: Path) -> None:
    recorded, images = (
        {"shards": 3, "count": 9, "batch_size": 2},
        {"shards": 5, "images": 40, "batch_size": 2},
    )
    made_from = {"model": {"trajectories": recorded}, "evaluation": images}  # as stages state them
    file = tmp_path / "0.npy"
    file.write_bytes(b"")
    remember(file, facts("samples", made_from))
    (tmp_path / "note").write_text("[torn")
    split = Split(tmp_path / "note")
    assert decided(split, "a", tmp_path, 2) == 5
    assert split.shards("b", tmp_path, "model", Division(2, 9, 2)) == 3
    assert split.shards("b of more", tmp_path, "model", Division(2, 10, 2)) == 2
    assert split.shards("c", tmp_path, "calibration", Division(2, 40, 2)) == 2
