"""Names of tensors that diffusers has today, and those it once had."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor

_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_ROLES = r"query|key|value|proj_attn|to_q|to_k|to_v|to_out\.0"
_ATTENTION = re.compile(rf"(?P<attention>.*\battentions\.\d+)\.(?P<role>{_ROLES})\.(?P<kind>weight|bias)")
_DIFFUSERS = re.compile(r"(?:(?:encoder|decoder)\.)?(?:down_blocks|mid_block|up_blocks|transformer_blocks)\.")


def joined(pairs: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """A dictionary of tensors; a name may come twice with the same tensor.

    Raises:
        KeyError: a name comes with two different tensors.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in pairs:
        if name in state and not torch.equal(state[name], tensor):
            raise KeyError(f"two different tensors are named '{name}', once their prefixes are taken off")
        state[name] = tensor
    return state


def are_diffusers(names: Iterable[str]) -> bool:
    """Whether a network's or autoencoder's tensors have diffusers' names."""
    return any(_DIFFUSERS.match(name) for name in names)


def to_current(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Diffusers state dict of any version -> of today's.

    Until version 0.14 an attention over pixels had `query`, `key`, `value` and `proj_attn`; weights converted
    from CompVis' layout may still be 1x1 convolutions.

    Raises:
        KeyError: an attention has both names with different tensors.
    """
    pairs = []
    for name, tensor in state.items():
        if match := _ATTENTION.fullmatch(name):
            name = f"{match['attention']}.{_OLD.get(match['role'], match['role'])}.{match['kind']}"
            tensor = tensor.flatten(1) if tensor.shape[2:] == (1, 1) else tensor
        pairs.append((name, tensor))
    return joined(pairs)
