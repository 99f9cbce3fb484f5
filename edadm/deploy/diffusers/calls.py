"""What pipelines and other packages ask of a network to change how it computes: kept from its grids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from edadm.config.backends import DEFAULT
from edadm.deploy.fuse.layers import IntegerConv2d
from edadm.errors import EdadmError

CPU = torch.device("cpu")
TOKEN_MERGING = "_tome_info"  # how the package tomesd calls its settings, which it gives the network first


class KeptGrids:
    """A mixin of networks whose attention and weights stay on their grids whatever they are asked.

    What would change nothing changes nothing, and what would leave grids or integers behind is refused.
    """

    backend: str

    def set_attn_processor(self, processor: Any) -> None:
        """Takes the network's own processors, as `unfuse_qkv_projections` puts them back, and no others.

        Raises:
            EdadmError: others.
        """
        own = self.attn_processors  # type: ignore[attr-defined]
        same = (
            isinstance(processor, dict)
            and processor.keys() == own.keys()
            and all(own[name] is processor[name] for name in own)
        )
        if not same:
            raise EdadmError(
                "the attention of a quantized network keeps its processors, which hold grids; leave the call "
                "out, or make it on "
                "the network in full precision"
            )

    def set_default_attn_processor(self) -> None:
        """Changes nothing: a quantized network's processors are its default."""

    def fuse_qkv_projections(self) -> None:
        """Refuses to make one layer of three, which have grids of their own.

        Raises:
            EdadmError: always.
        """
        raise EdadmError(
            "the projections of a quantized network have grids of their own and cannot be fused; leave the "
            "call out"
        )

    def unfuse_qkv_projections(self) -> None:
        """Changes nothing: they are never fused."""

    def _load_ip_adapter_weights(self, *unused: Any, **also_unused: Any) -> None:
        """Refuses an IP-Adapter, which puts processors of its own into every attention.

        Raises:
            EdadmError: always.
        """
        raise EdadmError(
            "a quantized network takes no IP-Adapter, whose attention has no grids; use the network in full "
            "precision"
        )

    def enable_layerwise_casting(self, *unused: Any, **also_unused: Any) -> None:
        """Refuses to keep weights in a narrow floating-point type.

        diffusers would cast the few layers in full precision alone, without saying so.

        Raises:
            EdadmError: always.
        """
        raise EdadmError(
            "layerwise casting finds no weights in a quantized network, which has codes; leave the call out, "
            "and load with a backend of integers to save memory"
        )

    def enable_group_offload(
        self,
        onload_device: torch.device,
        offload_device: torch.device = CPU,
        offload_type: Any = "block_level",
        *args: Any,
        **named: Any,
    ) -> None:
        """Off-loads the network in groups, as diffusers does, where what computes can wait elsewhere.

        Raises:
            EdadmError: leaves of a network of integers on a GPU, whose blocks compute with the tensors of
                several leaves at once.
        """
        leaves = str(getattr(offload_type, "value", offload_type)) == "leaf_level"
        if leaves and any(isinstance(module, IntegerConv2d) for module in _modules(self)):
            raise EdadmError(
                "blocks of integers on a GPU are off-loaded whole; take offload_type='block_level', or load "
                f"with backend='{DEFAULT}'"
            )
        super().enable_group_offload(onload_device, offload_device, offload_type, *args, **named)  # type: ignore[misc]

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses token merging where there are none of the blocks into which it is built.

        Raises:
            EdadmError: it is switched on there.
        """
        if name == TOKEN_MERGING and not any(isinstance(m, BasicTransformerBlock) for m in _modules(self)):
            raise EdadmError(
                f"token merging finds no blocks of diffusers in a network with backend '{self.backend}'; "
                f"load it with backend='{DEFAULT}', or leave it out"
            )
        super().__setattr__(name, value)


def _modules(network: Any) -> Iterable[nn.Module]:
    found: Iterable[nn.Module] = network.modules()
    return found
