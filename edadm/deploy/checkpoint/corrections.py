"""The correction that a quantized checkpoint may hold for the sampler, beside its network."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open

from edadm.artifacts import reading
from edadm.console import say
from edadm.networks.weights import CheckpointError
from edadm.sampling.correction import Correction

CORRECTION = "correction."  # begins the names of its tables


def read_correction(path: Path) -> Correction | None:
    """The correction in a quantized checkpoint; None in one that has none.

    Raises:
        CheckpointError: it is damaged.
    """
    with reading(path, refusal=CheckpointError), safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.startswith(CORRECTION)]  # noqa: SIM118 (no dict)
        tables = {name.removeprefix(CORRECTION): file.get_tensor(name) for name in names}
    if not tables:
        return None
    try:
        return Correction.from_tensors(tables)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; copy it again or make it again") from None


def say_that_none_applies(path: Path) -> None:
    """Says of a checkpoint with a correction that its network alone does not have it."""
    with reading(path, refusal=CheckpointError), safe_open(path, "pt") as file:
        has = any(name.startswith(CORRECTION) for name in file.keys())  # noqa: SIM118 (no dict)
    if has:
        say(
            f"{path} holds a correction of the sampler, which `edadm generate` applies and a network alone "
            "does not; read it with `edadm.deploy.checkpoint.read_correction`"
        )
