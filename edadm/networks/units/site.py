"""Where a network can be quantized: the tensors that enter its products."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from diffusers.models.attention_processor import Attention
from torch import nn

Role = Literal["weight", "input", "q", "k", "v", "probabilities"]
ROLES: tuple[Role, ...] = ("weight", "input", "q", "k", "v", "probabilities")


@dataclass(frozen=True)
class Site:
    """One tensor that a grid can be put on.

    Args:
        module: name of the layer or attention whose product it enters.
        role: what it is there.
        segments: channels of the parts that can have a grid each; none where the sizes are known only when
            the network runs.
        axis: of the tensor's channels.
        is_linear: whether it belongs to a linear layer.
    """

    module: str
    role: Role
    segments: tuple[int, ...]
    axis: int
    is_linear: bool = False

    @property
    def name(self) -> str:
        """The site's own name, such as `conv_in.weight`."""
        return f"{self.module}.{self.role}"


def sites_of(
    network: nn.Module, concatenations: Mapping[str, tuple[int, ...]], floats: Collection[str] = ()
) -> list[Site]:
    """Weights and inputs of all layers, then the operands of all attentions, each in registration order.

    Args:
        network: a network, or a block of one; attentions of other classes than diffusers' `Attention` have no
            sites.
        concatenations: sizes of the parts of concatenated input channels, by the layer that splits them.
        floats: names of layers that have no sites.
    """
    found = [site for site in _of_layers(network, concatenations) if site.module not in floats]
    return found + list(_of_attentions(network))


def _of_layers(network: nn.Module, concatenations: Mapping[str, tuple[int, ...]]) -> Iterator[Site]:
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            segments = concatenations.get(name, (layer.weight.shape[1],))
            is_linear = isinstance(layer, nn.Linear)
            yield Site(name, "weight", segments, 1, is_linear)
            yield Site(name, "input", segments, -1 if is_linear else 1, is_linear)


def _of_attentions(network: nn.Module) -> Iterator[Site]:
    for name, attention in network.named_modules():
        if isinstance(attention, Attention):
            yield Site(name, "q", (attention.inner_dim,), -1)
            yield Site(name, "k", (attention.inner_kv_dim,), -1)
            yield Site(name, "v", (attention.inner_kv_dim,), -1)
            yield Site(name, "probabilities", (), -1)
