"""Artifacts that are cut, flipped, swapped, empty or gone: their readers name them, or the same bytes come of it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .children import run
from .conftest import Whole, contents, remove
from .project import QUANTIZED, Stage

OTHERS = {  # what lies in an artifact's place after a swap
    "toy/fp32/unet.safetensors": "toy/tdac/calibration.safetensors",
    "toy/trajectories/0.zarr": "toy/trajectories/1.zarr",
    "toy/tdac/calibration.safetensors": "toy/tdac/w4a8/ranges.safetensors",
    "toy/tdac/selection.json": "toy/fp32/metrics.json",
    "toy/tdac/w4a8/ranges.safetensors": "toy/tdac/calibration.safetensors",
    f"{QUANTIZED}/quantized.safetensors": "toy/tdac/w4a8/ranges.safetensors",
    f"{QUANTIZED}/losses.csv": "report/metrics.csv",
    "toy/fp32/samples/0.npy": "toy/fp32/samples/1.npy",
    f"{QUANTIZED}/samples/0.npy": "toy/fp32/samples/0.npy",
    f"{QUANTIZED}/features/0_of_1.safetensors": f"{QUANTIZED}/quantized.safetensors",
    "toy/fp32/metrics.json": f"{QUANTIZED}/metrics.json",
    f"{QUANTIZED}/metrics.json": "toy/fp32/metrics.json",
    "toy/speed.json": "toy/tdac/selection.json",
}
READERS = {  # stages that read it, each the last one of its name
    "toy/fp32/unet.safetensors": ("collect-trajectories", "set-ranges", "reconstruct", "benchmark unet"),
    "toy/trajectories/0.zarr": ("select-calibration",),
    "toy/tdac/calibration.safetensors": ("set-ranges", "reconstruct"),
    "toy/tdac/selection.json": ("report",),
    "toy/tdac/w4a8/ranges.safetensors": ("reconstruct",),
    f"{QUANTIZED}/quantized.safetensors": ("generate", "benchmark unet"),
    f"{QUANTIZED}/losses.csv": ("report",),
    "toy/fp32/samples/0.npy": ("extract-features", "evaluate", "report"),
    f"{QUANTIZED}/samples/0.npy": ("extract-features", "evaluate", "report"),
    f"{QUANTIZED}/features/0_of_1.safetensors": ("evaluate",),
    "toy/fp32/metrics.json": ("report",),
    f"{QUANTIZED}/metrics.json": ("report",),
    "toy/speed.json": ("report",),
}


Damage = Callable[[Path, str], None]


def largest(path: Path) -> Path:
    """A file, or the largest one in a store."""
    files = (file for file in (path, *sorted(path.rglob("*"))) if file.is_file())
    return max(files, key=lambda file: file.stat().st_size)


def facts_of(path: Path) -> Path:
    """Where the facts of a file lie that has no room for them."""
    return path.with_name(f"{path.name}.made.json")


def cut(folder: Path, name: str) -> None:
    file = largest(folder / name)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


def empty(folder: Path, name: str) -> None:
    largest(folder / name).write_bytes(b"")


def flip(folder: Path, name: str) -> None:
    file = largest(folder / name)
    data = bytearray(file.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    file.write_bytes(bytes(data))


def lose(folder: Path, name: str) -> None:
    remove(folder / name)


def swap(folder: Path, name: str) -> None:
    remove(folder / name)
    other = folder / OTHERS[name]
    (shutil.copytree if other.is_dir() else shutil.copy)(other, folder / name)


def swap_with_facts(folder: Path, name: str) -> None:
    """As where a person moves files about."""
    swap(folder, name)
    lose_facts(folder, name)
    if (told := facts_of(folder / OTHERS[name])).exists():
        shutil.copy(told, facts_of(folder / name))


def lose_facts(folder: Path, name: str) -> None:
    facts_of(folder / name).unlink()


def cut_facts(folder: Path, name: str) -> None:
    told = facts_of(folder / name)
    told.write_bytes(told.read_bytes()[:40])


DAMAGES = (cut, empty, flip, lose, swap)
OF_FACTS = (swap_with_facts, lose_facts, cut_facts)


def possible(damage: Damage, artifact: str) -> bool:
    """Facts lie beside some files alone, and nobody must have timed anything."""
    beside = artifact.endswith((".npy", ".csv"))
    return (beside or damage not in OF_FACTS) and (damage, artifact) != (lose, "toy/speed.json")


PLACES = [(artifact, reader) for artifact, readers in READERS.items() for reader in readers]
ALL = [(damage, *place) for damage in (*DAMAGES, *OF_FACTS) for place in PLACES if possible(damage, place[0])]
KNOWN = [
    (flip, f"{QUANTIZED}/features/0_of_1.safetensors", "evaluate"),
    (empty, "toy/fp32/samples/0.npy", "evaluate"),
    (swap_with_facts, "toy/fp32/samples/0.npy", "report"),
]
DRAWN = random.Random(14).sample(ALL, 14)


def wrong(whole: Whole, folder: Path, artifact: str, stage: Stage) -> str | None:
    """Nothing where one sentence names the damaged file, or the stage ends with the same bytes."""
    status, said = run(stage.argv, folder)
    if status == 0:
        expected, found = whole.after(whole.stages.index(stage)), contents(folder)
        made = [output for output in stage.outputs if output in expected]
        return None if made and all(found[name] == expected[name] for name in made) else "taken as good"
    sentences = [line for line in said.splitlines() if line.startswith(("edadm: ", "Error: Invalid value"))]
    if status != 2 or len(sentences) != 1 or "Traceback" in said:
        return f"status {status}: {said}"
    return (
        None
        if Path(artifact).name.split(".")[0] in said[said.index(sentences[0][:7]) :]
        else f"not named: {said}"
    )


def mistakes(cases: list[tuple[Damage, str, str]], whole: Whole, folder: Path) -> list[str]:
    """Of all cases those that go wrong."""
    found = []
    for damage, artifact, reader in cases:
        index = whole.index(reader)
        whole.before(index, folder)
        if not (folder / OTHERS[artifact]).exists():  # made by a later stage
            shutil.copy(whole.folder / OTHERS[artifact], folder / OTHERS[artifact])
        damage(folder, artifact)
        if reason := wrong(whole, folder, artifact, whole.stages[index]):
            found.append(f"{damage.__name__}: {artifact}, {reader}: {reason}")
        shutil.rmtree(folder)
    return found


def test_some_damaged_artifacts_are_named_by_their_readers(whole: Whole, tmp_path: Path) -> None:
    assert mistakes([*KNOWN, *DRAWN], whole, tmp_path / "damaged") == []


@pytest.mark.long
def test_every_damaged_artifact_is_named_by_its_readers(whole: Whole, tmp_path: Path) -> None:
    assert mistakes(ALL, whole, tmp_path / "damaged") == []
