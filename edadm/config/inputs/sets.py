"""Which files and folders hold a set of images, told from their names and heads; imports no torch."""

from __future__ import annotations

import zipfile
from pathlib import Path

from edadm.errors import EdadmError

ZIPS = (".zip",)
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARRAYS = (".npy", ".npz")
DATABASE = "data.mdb"  # of LMDB, as LSUN comes
CIFAR_TRAINING = tuple(f"data_batch_{number}" for number in range(1, 6))
CIFAR_BATCHES = (*CIFAR_TRAINING, "test_batch")
FORMS = (
    "a folder of images, a .zip or .tar of them, pixels as .npz or .npy, CIFAR-10's archive, folder or "
    "batch, or a folder with LSUN's data.mdb"
)


def kind_of(path: Path) -> str:
    """`folder`, `database`, `cifar`, `zip`, `tar` or `arrays`; an archive of CIFAR-10 is a `tar`.

    Raises:
        EdadmError: of another kind.
    """
    name = path.name.lower()
    if path.is_dir():
        if (path / DATABASE).is_file():
            return "database"
        return "cifar" if any(is_batch(entry.name) for entry in path.iterdir()) else "folder"
    kinds = {"zip": ZIPS, "tar": TARS, "arrays": ARRAYS}
    found = [kind for kind, suffixes in kinds.items() if name.endswith(suffixes)]
    if not found and not is_batch(name):
        raise EdadmError(f"{path} is no set of images; give {FORMS}")
    return found[0] if found else "cifar"


def is_batch(name: str) -> bool:
    """Whether a file's name is that of a batch of CIFAR-10, as Python or binary."""
    return name.removesuffix(".bin") in CIFAR_BATCHES


def holds_images(path: Path) -> bool:
    """Whether what may be statistics of images are images themselves, which an `.npz` with `mu` is not."""
    name = path.name.lower()
    if path.is_dir() or is_batch(name) or name.endswith((*ZIPS, *TARS, ".npy")):
        return True
    if not name.endswith(".npz") or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    return "mu.npy" not in members and "arr_0.npy" in members
