"""Whatever happens to a store, its readers name it or get the same numbers."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from edadm.artifacts import facts
from edadm.calibration.conditions import with_conditions
from edadm.calibration.select import select
from edadm.config.schema import Calibration
from edadm.errors import EdadmError
from edadm.sampling.shards import open_finished
from edadm.sampling.store import TrajectoryStore

STEPS, SHAPE, TIMESTEPS = 3, (1, 4, 4), [800, 400, 0]
SETTINGS = Calibration(size=7, held_out=1, radius=0.5)
MODEL = {"trajectories": {"count": 8, "seed": 1}}


def filled(path: Path, first: int, seed: int, known: dict | None) -> TrajectoryStore:
    """A store of four guided runs in two batches, the second without features."""
    generator = torch.Generator().manual_seed(seed)
    nothing = {"context": torch.ones(2, 3)}
    store = TrajectoryStore.create(path, first, 4, 2, TIMESTEPS, SHAPE, nothing, is_guided=True)
    for batch in range(2):
        features = [torch.randn(2, 5, 2, 2, generator=generator) for _ in TIMESTEPS]
        latents = torch.randn(2, STEPS, *SHAPE, generator=generator)
        told = {"context": torch.randn(2, 2, 3, generator=generator)}
        store.write(batch, latents, [] if batch else features, told)
    if known is not None:
        store.seal(known)
    return store


def collection(folder: Path, sealed: bool = True, unet: str = "aa") -> Path:
    for shard in range(2):
        made_from = {"model": MODEL, "shard": shard, "inputs": {"unet": unet}}
        store = filled(
            folder / f"{shard}.zarr", 4 * shard, shard, facts("trajectories", made_from) if sealed else None
        )
        if not sealed:  # as edadm 0.1.0 left it
            shutil.rmtree(store.path / "digests")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collection(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collection(tmp_path_factory.mktemp("old"), sealed=False)


def chosen(folder: Path) -> dict[str, np.ndarray]:
    """What comes of the stores in a folder."""
    stores, _ = open_finished(sorted(folder.glob("*.zarr")))
    groups = [store.group for store in stores]
    return with_conditions(select(groups, SETTINGS)[0], groups)


def test_a_store_with_a_file_for_each_step_gives_the_same(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = zarr.Group.create_array

    def unsharded(group: zarr.Group, name: str, shards: object = None, **settings: object) -> zarr.Array:
        return create(group, name, **settings)

    monkeypatch.setattr(zarr.Group, "create_array", unsharded)  # as edadm 0.2 had it
    earlier = collection(tmp_path / "earlier")
    assert len(chunks(earlier, "latents")) == 2 * STEPS
    assert len(chunks(whole, "latents")) == 2
    assert open_finished(sorted(earlier.glob("*.zarr")))[1] == open_finished(sorted(whole.glob("*.zarr")))[1]
    before, now = chosen(earlier), chosen(whole)
    assert before.keys() == now.keys()
    assert all(np.array_equal(before[name], now[name]) for name in now)


ARRAYS = (
    "latents",
    "context",
    "timesteps",
    "finished",
    "distance",
    "dissimilarity",
    "feature_rows",
    "feature_elements",
)
ARRAYS = (*ARRAYS, "digests", "unconditional")


def chunks(folder: Path, array: str) -> list[Path]:
    return sorted(path for path in (folder / "0.zarr" / array / "c").rglob("*") if path.is_file())


def lose(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\1")


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def put_another(file: Path) -> None:
    others = [path for path in sorted(file.parents[1].rglob("*")) if path.is_file() and path != file]
    file.write_bytes(others[-1].read_bytes() if others else b"\0" * file.stat().st_size)


BYTES = (lose, halve, flip, put_another)
ODD_BYTES = (empty, lengthen, make_folder)


@functools.cache
def right(whole: Path) -> dict[str, np.ndarray]:
    return chosen(whole)


def assert_right_or_named(folder: Path, whole: Path) -> bool:
    """Whether the same comes of it; whoever refuses it must name the file and what to do, and not end in a traceback."""
    try:
        found = chosen(folder)
    except EdadmError as error:
        sentence = str(error)
        assert ".zarr" in sentence
        assert "; " in sentence
        assert "\n" not in sentence
        return False
    assert found.keys() == right(whole).keys()
    for name, array in right(whole).items():
        np.testing.assert_array_equal(found[name], array)
    return True


def test_whole_stores_are_read(whole: Path, old: Path) -> None:
    rows, before = chosen(whole), chosen(old)
    assert rows["latents"].shape == (14, *SHAPE)
    assert all(np.array_equal(rows[name], before[name]) for name in rows)


@pytest.mark.parametrize(
    ("array", "damage"),
    [*itertools.product(ARRAYS, BYTES), *itertools.product(("latents", "distance", "finished"), ODD_BYTES)],
)
def test_a_damaged_chunk_is_named_or_harmless(
    array: str, damage: Callable[[Path], None], whole: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    file = chunks(folder, array)[0]
    before = file.read_bytes()
    damage(file)
    assert not file.is_file() or file.read_bytes() != before
    kept = assert_right_or_named(folder, whole)
    assert not (kept and array in ("latents", "context", "timesteps", "distance"))


@pytest.mark.parametrize("damage", [lose, put_another, "text"])
@pytest.mark.parametrize("array", ["", *ARRAYS])
def test_damaged_metadata_are_named_or_harmless(
    array: str, damage: Callable[[Path], None] | str, whole: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    file = folder / "0.zarr" / array / "zarr.json"
    if isinstance(damage, str):
        file.write_text("[]")
    elif damage is put_another:
        shutil.copy(
            folder / "0.zarr/latents/zarr.json"
            if array != "latents"
            else folder / "0.zarr/context/zarr.json",
            file,
        )
    else:
        damage(file)
    kept = assert_right_or_named(folder, whole)
    assert not (kept and array in ("", "latents", "context", "timesteps", "distance"))


EDITS = {
    "shape": ("latents", lambda found: found.update(shape=[4, 3, 1, 4, 8])),
    "more runs": ("latents", lambda found: found.update(shape=[10**9, 3, 1, 4, 4])),
    "type": ("latents", lambda found: found.update(data_type="float64")),
    "fill": ("latents", lambda found: found.update(fill_value=1.0)),
    "chunks": (
        "latents",
        lambda found: found["chunk_grid"]["configuration"].update(chunk_shape=[1, 1, 1, 4, 4]),
    ),
    "codec": ("latents", lambda found: found["codecs"][0]["configuration"].update(endian="big")),
    "steps": ("timesteps", lambda found: found.update(shape=[10**12])),
    "batches": ("finished", lambda found: found.update(shape=[3])),
    "first run": ("", lambda found: found["attributes"].update(first_run=4)),
    "no first run": ("", lambda found: found["attributes"].pop("first_run")),
    "size 0": ("", lambda found: found["attributes"].update(batch_size=0)),
    "size 1": ("", lambda found: found["attributes"].update(batch_size=1)),
    "size text": ("", lambda found: found["attributes"].update(batch_size="many")),
    "settings": (
        "",
        lambda found: found["attributes"]["edadm"]["made_from"]["model"]["trajectories"].update(seed=2),
    ),
    "content": ("", lambda found: found["attributes"]["edadm"].update(content="0" * 64)),
    "format": ("", lambda found: found["attributes"]["edadm"].update(format=99)),
    "no attributes": ("", lambda found: found.update(attributes={})),
    "an array": ("", lambda found: found.update(node_type="array")),
}


@pytest.mark.parametrize("edit", EDITS)
def test_edited_metadata_are_named_or_harmless(edit: str, whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    array, change = EDITS[edit]
    file = folder / "0.zarr" / array / "zarr.json"
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))
    assert assert_right_or_named(folder, whole) == (edit == "fill")


def swap(folder: Path) -> None:
    for name, other in (("0", "2"), ("1", "0"), ("2", "1")):
        (folder / f"{name}.zarr").rename(folder / f"{other}.zarr")


def double(folder: Path) -> None:
    shutil.copytree(folder / "0.zarr", folder / "2.zarr")


def repeat(folder: Path) -> None:
    shutil.rmtree(folder / "1.zarr")
    shutil.copytree(folder / "0.zarr", folder / "1.zarr")


def lose_last(folder: Path) -> None:
    shutil.rmtree(folder / "1.zarr")


def lose_first(folder: Path) -> None:
    shutil.rmtree(folder / "0.zarr")


def foreign(folder: Path) -> None:
    other = collection(folder.parent / "other", unet="bb")
    shutil.rmtree(folder / "1.zarr")
    shutil.copytree(other / "1.zarr", folder / "1.zarr")


def lose_array(folder: Path) -> None:
    shutil.rmtree(folder / "0.zarr" / "context")


def swap_arrays(folder: Path) -> None:
    store = folder / "0.zarr"
    for name, other in (("distance", "x"), ("dissimilarity", "distance"), ("x", "dissimilarity")):
        (store / name).rename(store / other)


def swap_chunks(folder: Path) -> None:
    chunk = folder / "0.zarr" / "latents" / "c"
    for name, other in (("0", "x"), ("1", "0"), ("x", "1")):
        (chunk / name).rename(chunk / other)


def file_for_store(folder: Path) -> None:
    shutil.rmtree(folder / "0.zarr")
    (folder / "0.zarr").write_text("none")


def nothing_for_store(folder: Path) -> None:
    shutil.rmtree(folder / "0.zarr")
    (folder / "0.zarr").mkdir()


SHARDS = (
    double,
    repeat,
    lose_last,
    lose_first,
    foreign,
    lose_array,
    swap_arrays,
    swap_chunks,
    file_for_store,
    nothing_for_store,
)


@pytest.mark.parametrize("damage", SHARDS)
def test_wrong_shards_are_named(damage: Callable[[Path], None], whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    damage(folder)
    assert not assert_right_or_named(folder, whole)


@pytest.mark.parametrize(
    "array", ["latents", "context", "timesteps", "finished", "distance", "dissimilarity", "feature_elements"]
)
def test_what_a_store_without_digests_must_have_is_looked_for(array: str, old: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(old, tmp_path / "copy")
    chunks(folder, array)[0].unlink()
    assert not assert_right_or_named(folder, old)


def test_shards_in_another_order_are_refused_with_what_to_do(whole: Path) -> None:
    with pytest.raises(
        EdadmError,
        match=r"1\.zarr begins with run 4, where run 0 is next; name the stores of all shards once, in order",
    ):
        open_finished([whole / "1.zarr", whole / "0.zarr"])


def test_equal_runs_give_equal_bytes(whole: Path, tmp_path: Path) -> None:
    again = collection(tmp_path / "again")
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert len(files) > 40
    assert all((whole / file).read_bytes() == (again / file).read_bytes() for file in files)


def test_a_store_is_sealed_with_the_batches_that_were_written_last(whole: Path, tmp_path: Path) -> None:
    """Batches that this process wrote are not read again for that."""
    made_from = {"model": MODEL, "shard": 0, "inputs": {"unet": "aa"}}
    store = filled(tmp_path / "0.zarr", 0, 1, None)
    assert store.unfinished() == []
    generator = torch.Generator().manual_seed(0)
    for batch in range(2):
        features = [torch.randn(2, 5, 2, 2, generator=generator) for _ in TIMESTEPS]
        latents = torch.randn(2, STEPS, *SHAPE, generator=generator)
        told = {"context": torch.randn(2, 2, 3, generator=generator)}
        store.write(batch, latents, [] if batch else features, told)
    expected = TrajectoryStore(whole / "0.zarr").content()
    assert store.seal(facts("trajectories", made_from)) == expected
    assert TrajectoryStore(tmp_path / "0.zarr").content() == expected


@pytest.mark.parametrize("damage", [lose, flip])
@pytest.mark.parametrize("array", [name for name in ARRAYS if name not in ("timesteps", "unconditional")])
def test_a_damaged_batch_in_the_middle_of_a_collection_is_collected_again(
    array: str, damage: Callable[[Path], None], whole: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    damage(chunks(folder, array)[0])
    again = TrajectoryStore(folder / "0.zarr", mode="r+")
    assert again.unfinished() == [0]
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(2, 5, 2, 2, generator=generator) for _ in TIMESTEPS]
    latents = torch.randn(2, STEPS, *SHAPE, generator=generator)
    again.write(0, latents, features, {"context": torch.randn(2, 2, 3, generator=generator)})
    assert again.unfinished() == []
    assert assert_right_or_named(folder, whole)
