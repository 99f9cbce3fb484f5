"""The GPUs that this process may use, found without CUDA, which looks at its surroundings only once."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edadm.errors import EdadmError

VISIBLE = "CUDA_VISIBLE_DEVICES"
_OF_SLURM = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")  # for whoever clears what Slurm sets beside them
_GPU = re.compile(r"GPU (\d+): (.+) \(UUID: (\S+)\)")
_INSTANCE = re.compile(r"\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (\S+)\)")


@dataclass(frozen=True)
class Gpu:
    """A GPU, or an instance of one that is divided (MIG).

    Attributes:
        place: as `nvidia-smi` numbers it, e.g. `GPU 2` or `GPU 2, instance 1`.
        name: its kind.
        uuid: by which CUDA_VISIBLE_DEVICES can name it.
    """

    place: str
    name: str
    uuid: str

    def __str__(self) -> str:
        return f"{self.place} ({self.name}, {self.uuid})"


def listing() -> str:
    """What `nvidia-smi -L` says; nothing where it is absent or fails."""
    command = ["nvidia-smi", "-L"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def visible_gpus(said: str | None = None, environment: Mapping[str, str] | None = None) -> list[Gpu]:
    """The GPUs that a process may use, in CUDA's order; none where `nvidia-smi` lists none.

    CUDA_VISIBLE_DEVICES is understood as CUDA does: numbers, UUIDs or beginnings of them, and names of MIG
    instances, up to the first that is not there. Unlike CUDA, which shows a process one instance of a divided
    GPU, all are in the list. Where the variable is not set, Slurm's list of the job's GPUs is taken.

    Args:
        said: by `nvidia-smi -L`; asked here if None.
        environment: the variables; those of this process if None.

    Raises:
        EdadmError: numbers choose among GPUs of several kinds, which CUDA numbers otherwise than `nvidia-smi`
            unless CUDA_DEVICE_ORDER says so.
    """
    there = _parsed(listing() if said is None else said)
    environment = os.environ if environment is None else environment
    entries = _entries(environment, len(there))
    if entries is None:
        return [gpu for _, parts in there for gpu in parts]
    if any(entry.isdigit() for entry in entries) and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        refuse_several_kinds([whole for whole, _ in there])
    chosen: list[Gpu] = []
    for entry in entries:
        meant = _meant(entry, there)
        if not meant:
            break
        if set(meant) & set(chosen):
            return []  # CUDA shows none either where one is named twice
        chosen += meant
    return chosen


def refuse_several_kinds(gpus: Sequence[Gpu]) -> None:
    """Refuses to choose among GPUs of several kinds.

    Raises:
        EdadmError: they are.
    """
    kinds = dict.fromkeys(gpu.name for gpu in gpus)
    if len(kinds) > 1:
        raise EdadmError(
            f"the GPUs here are of several kinds ({', '.join(kinds)}), on which results differ in their last "
            f"bits; put those of one kind into {VISIBLE}, by their UUIDs of `nvidia-smi -L`"
        )


def _parsed(said: str) -> list[tuple[Gpu, list[Gpu]]]:
    """Each GPU with what of it can be used: itself, or its instances."""
    there: list[tuple[Gpu, list[Gpu]]] = []
    for line in said.splitlines():
        if found := _GPU.match(line):
            gpu = Gpu(f"GPU {found[1]}", found[2], found[3])
            there.append((gpu, [gpu]))
        elif (found := _INSTANCE.match(line)) and there:
            gpu, parts = there[-1]
            if parts == [gpu]:
                parts.clear()
            parts.append(Gpu(f"{gpu.place}, instance {found[2]}", f"{gpu.name} MIG {found[1]}", found[3]))
    return there


def _entries(environment: Mapping[str, str], count: int) -> list[str] | None:
    """What the surroundings name, one by one; None where they leave the choice."""
    if (text := environment.get(VISIBLE)) is not None:
        return [entry.strip() for entry in text.split(",")] if text.strip() else []
    text = next((environment[name] for name in _OF_SLURM if environment.get(name)), None)
    if text is None:
        return None
    numbers: list[str] = []
    for entry in text.split(","):
        first, _, last = entry.partition("-")
        whole = first.isdigit() and last.isdigit()
        numbers += map(str, range(int(first), int(last) + 1)) if whole else [entry]
    return None if len(numbers) == count else numbers  # all, in a job that sees no others


def _meant(entry: str, there: Sequence[tuple[Gpu, list[Gpu]]]) -> list[Gpu]:
    """What an entry of CUDA_VISIBLE_DEVICES names; nothing if that is not there."""
    if entry.isdigit():
        return there[int(entry)][1] if int(entry) < len(there) else []
    if not entry.startswith(("GPU-", "MIG-")):
        return []
    named = [parts for whole, parts in there if whole.uuid.startswith(entry)]
    instances = [part for whole, parts in there for part in parts if part is not whole]
    named += [[part] for part in instances if part.uuid.startswith(entry)]
    return named[0] if len(named) == 1 else []
