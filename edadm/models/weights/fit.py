"""Whether tensors are those of a network."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from edadm.models.weights.errors import CheckpointError, quoted
from edadm.models.weights.identify import said_of

_MEND = "mend `architecture`, or name another file"


def check_fit(
    state: dict[str, Tensor],
    expected: dict[str, Tensor],
    path: Path,
    original: dict[str, Tensor] | None = None,
) -> None:
    """Compares names and shapes with those of the network.

    Args:
        state: tensors by the network's names.
        expected: the network's own.
        path: of the file, for sentences.
        original: all tensors of the file as they are named in it, by which it can be said what it is.

    Raises:
        CheckpointError: names the first tensor that differs and both shapes, and what the file is if known.
    """
    told = said_of(original or state, "unet") if "time_embedding.linear_1.weight" in expected else ""
    for name, tensor in expected.items():
        if name not in state:
            lacking = f"lacks the tensor '{name}' {tuple(tensor.shape)}"
            told = told.replace("; it is", " It is")
            raise CheckpointError(f"{path} {lacking}; does `architecture` fit this checkpoint?{told}")
        if state[name].shape != tensor.shape:
            found = f"'{name}' has shape {tuple(state[name].shape)}"
            wanted = f"the preset's network {tuple(tensor.shape)}"
            raise CheckpointError(f"{path}: {found}, {wanted}; {_MEND}{told}")
    if unknown := sorted(set(state) - set(expected)):
        surplus = f"holds {quoted(unknown[0])}, which the preset's network lacks"
        raise CheckpointError(f"{path} {surplus}; {_MEND}{told}")
