"""Files that users bring along: one that is cut, empty, a folder or not to be read is named in a sentence."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from edadm.config.files.sources import file_sha256
from edadm.config.inputs.prompts import prompts_in
from edadm.config.inputs.statistics import statistics_head
from edadm.errors import EdadmError
from edadm.kernels.int8 import tiles
from edadm.metrics.images.datasets import ShardedImages
from edadm.metrics.images.sets import FolderImages
from edadm.metrics.references import load_reference
from edadm.metrics.scores.frechet import save_statistics
from edadm.networks.described.told import lines_on
from edadm.networks.settings.reading import read_json
from edadm.networks.weights import read_state
from edadm.networks.weights.folders import _weight_map
from edadm.training.images import read_image_folder

from ..training.test_diffusion import trainer

NOBODY = 65534
SIGMA = np.eye(3)


def write_statistics(path: Path) -> None:
    facts = {"extractor": "inception", "images": 3, "set": "x"}
    save_statistics(path, {"pooled": {"mu": np.zeros(3), "sigma": SIGMA}}, facts)


def write_class(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)).save(path)


READERS: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object]]] = {
    "statistics": ("real.h5", write_statistics, statistics_head),
    "statistics in full": ("real.h5", write_statistics, load_reference),
    "others' statistics": (
        "r.npz",
        lambda path: np.savez(path, mu=np.zeros(3), sigma=SIGMA),
        statistics_head,
    ),
    "others' in full": ("r.npz", lambda path: np.savez(path, mu=np.zeros(3), sigma=SIGMA), load_reference),
    "pictures": ("a/1.png", write_class, lambda path: FolderImages(path.parent, None)),
    "pictures to learn from": ("a/1.png", write_class, lambda path: read_image_folder(path.parents[1])),
    "images": (
        "0.npy",
        lambda path: np.save(path, np.zeros((1, 3, 4, 4), np.uint8)),
        lambda path: ShardedImages([path])[0],
    ),
    "a description": ("config.json", lambda path: path.write_text('{"sample_size": 32}'), read_json),
    "an index": (
        "w.index.json",
        lambda path: path.write_text(f'{{"weight_map": {{"a": "{path.name}"}}}}'),
        _weight_map,
    ),
    "weights": ("w.safetensors", lambda path: save_file({"a": torch.zeros(3)}, path), read_state),
    "weights to describe": ("w.safetensors", lambda path: save_file({"a": torch.zeros(3)}, path), lines_on),
    "a training": ("state.pt", lambda path: trainer().save(path), lambda path: trainer().resume(path)),
    "tiles": ("t.json", lambda path: path.write_text('{"a": [1, 2, 3, 4, 5]}'), tiles.adopt),
    "prompts": ("p.txt", lambda path: path.write_text("a cat\n"), prompts_in),
    "anything": ("w.pt", lambda path: path.write_text("abc"), file_sha256),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def denied(path: Path) -> None:
    path.chmod(0)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Inside the context root, who may read all, is somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


HARMLESS = {  # half a text is as good, no pictures lie in a folder called so, and an empty file is described
    *((name, damage) for name in ("prompts", "anything") for damage in (cut, empty)),
    *((name, folder) for name in ("pictures", "pictures to learn from")),
    ("weights to describe", empty),
}
DAMAGED = [(name, damage) for name in READERS for damage in (cut, empty, folder, denied)]


@pytest.mark.parametrize(("name", "damage"), [each for each in DAMAGED if each not in HARMLESS])
def test_a_file_that_cannot_be_read_is_named_in_a_sentence(
    name: str, damage: Callable[[Path], None], open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "measured", dict)
    file, make, read = READERS[name]
    path = Path(tempfile.mkdtemp(dir=open_folder)) / file
    path.parents[0].mkdir(exist_ok=True)
    make(path)
    for each in (*path.relative_to(open_folder).parents,):
        (open_folder / each).chmod(0o755)
    path.chmod(0o644)
    read(path)
    damage(path)
    with as_nobody() if damage is denied else nullcontext(), pytest.raises(EdadmError) as caught:
        read(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "; " in said
    assert len(said.splitlines()) == 1
    if damage is denied:
        assert "may not" in said or "permission denied" in said
        assert "make it readable" in said
