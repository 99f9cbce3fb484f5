"""Whether tensors are those of a network."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from edadm.networks.weights.errors import CheckpointError, quoted
from edadm.networks.weights.known.identify import said_of
from edadm.networks.weights.settings import Difference, deciding

State = dict[str, Tensor]
_IN_PARTS = r"(?:{module}\.parametrizations\.{kind}\.\w+|{module}\.{kind}_(?:g|v|orig|mask))"


def check_fit(
    state: State, expected: State, path: Path, original: State | None = None, in_diffusers: bool = False
) -> None:
    """Compares names and shapes with those of the network.

    Args:
        state: tensors by the network's names.
        expected: the network's own.
        path: of the file, for sentences.
        original: all tensors of the file as they are named in it, by which it can be said what it is.
        in_diffusers: whether the preset describes its U-Net by diffusers' own settings.

    Raises:
        CheckpointError: names the first tensor that differs and both shapes, says which setting decides it,
            and what the file is if that is known.
    """
    difference = _first_difference(state, expected)
    if difference is None:
        return
    name, found, wanted = quoted(difference.name), difference.found, difference.wanted
    if found is None and (parts := _parts_of(difference.name, state)):
        raise CheckpointError(
            f"{path} holds {quoted(parts)}, from which {name} is yet to be computed (weight or spectral "
            "norm, pruning); in the program that made it, remove that parametrization and write the network "
            "again"
        )
    if found is None:
        told = f"{path} lacks the tensor {name} {wanted}"
    elif wanted is None:
        told = f"{path} holds {name}, which the preset's network lacks"
    else:
        told = f"{path}: {name} has shape {found}, the preset's network {wanted}"
    setting = deciding(difference, expected, state, in_diffusers)
    fix = f"`{setting}` decides that, and" if setting else "mend `architecture`:"
    if wanted and found is not None and 0 in (len(found), *found):
        raise CheckpointError(f"{told}; it has no numbers, so the file is damaged: take another one")
    kind = said_of(original or state, "unet") if "time_embedding.linear_1.weight" in expected else ""
    raise CheckpointError(f"{told}; {fix} `edadm describe` prints what a file needs{kind}")


def _parts_of(name: str, state: State) -> str | None:
    """The first tensor from which a reparametrized layer computes another at each call."""
    module, _, kind = name.rpartition(".")
    pattern = re.compile(_IN_PARTS.format(module=re.escape(module), kind=re.escape(kind)))
    return next((other for other in sorted(state) if pattern.fullmatch(other)), None)


def _first_difference(state: State, expected: State) -> Difference | None:
    """In the network's order, and then in that of surplus names."""
    for name, tensor in expected.items():
        found, wanted = tuple(state[name].shape) if name in state else None, tuple(tensor.shape)
        if found != wanted:
            return Difference(name, found, wanted)
    surplus = sorted(set(state) - set(expected))
    return Difference(surplus[0], tuple(state[surplus[0]].shape), None) if surplus else None
