"""Whether tensors are those of a network."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from edadm.models.weights.errors import CheckpointError


def check_fit(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    """Compares names and shapes with those of the network.

    Raises:
        CheckpointError: names the first tensor that differs and both shapes.
    """
    for name, tensor in expected.items():
        if name not in state:
            raise CheckpointError(f"{path} lacks the tensor '{name}' {tuple(tensor.shape)}; does `architecture` fit this checkpoint?")
        if state[name].shape != tensor.shape:
            found = tuple(state[name].shape)
            raise CheckpointError(
                f"{path}: '{name}' has shape {found}, the preset's network {tuple(tensor.shape)}; mend `architecture`, or name another file"
            )
    if unknown := sorted(set(state) - set(expected)):
        raise CheckpointError(f"{path} holds '{unknown[0]}', which the preset's network lacks; mend `architecture`, or name another file")
