"""What all U-Nets with skips have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DModel
from jaxtyping import Float
from torch import Tensor, nn

from edadm.networks.family import Coupling, Family, TemporalPart, UnitKind
from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.unet.blocks.concat import shortcut_splits
from edadm.networks.unet.blocks.couplings import couplings_of
from edadm.networks.unet.blocks.kinds import KINDS
from edadm.networks.unet.blocks.temporal import temporal_block

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    UNet: TypeAlias = UNet2DModel | UNet2DConditionModel
else:
    UNet = ModelMixin  # the other class takes seconds to import, and most networks are none of it


class UNetFamily(Family):
    """U-Nets of diffusers' modules."""

    classes: ClassVar[tuple[type[nn.Module], ...]] = (UNet2DModel,)
    kinds: ClassVar[Sequence[UnitKind]] = KINDS
    arguments: ClassVar[tuple[str, ...]] = ("latents", "timesteps", "context")  # by position

    @abstractmethod
    def network(self, architecture: Architecture) -> UNet:
        """The network as its library builds it."""

    def build(self, architecture: Architecture) -> UNet:
        """A randomly initialised U-Net with the arithmetic of the original code.

        Outputs agree with the original's to rounding (tests/networks). Attentions multiply explicitly, as in
        the quantized network, not in a fused kernel.

        Raises:
            EdadmError: diffusers knows no such network.
        """
        unet = self.network(architecture)
        unet.family = self.name
        for module in attentions(unet):
            module.set_processor(AttnProcessor())
        return unet

    def inputs(self, network: nn.Module) -> InputSpec:
        settings: Any = network.config
        size, channels = settings["sample_size"], settings.get("cross_attention_dim")
        shapes: dict[str, tuple[int, ...]] = {
            "latents": (settings["in_channels"], size, size),
            "timesteps": (),
        }
        return InputSpec(shapes if channels is None else shapes | {"context": (1, channels)})

    def call(self, network: nn.Module, rows: Rows) -> Float[Tensor, " n *s"]:
        given = (rows.tensors[name] for name in self.arguments if name in rows.tensors)
        return network(*given, return_dict=False)[0]

    def feature_module(self, network: nn.Module) -> nn.Module:
        """The middle's attention, or what follows in a network without one there, whose input is the same."""
        middle: Any = network.mid_block
        found: nn.Module = middle.attentions[0] or middle.resnets[1]
        return found

    def concatenations(self, network: nn.Module) -> Mapping[str, tuple[int, ...]]:
        parts: dict[str, tuple[int, ...]] = {}
        for name, main in shortcut_splits(network).items():
            shortcut: Any = network.get_submodule(name)
            parts[name] = (main, shortcut.in_channels - main)
        return parts

    def couplings(self, network: nn.Module) -> Sequence[Coupling]:
        return couplings_of(network)

    def temporal(self, network: nn.Module) -> TemporalPart | None:
        return temporal_block(network)


def attentions(unet: nn.Module) -> Iterator[Attention]:
    """The attentions of a U-Net, in registration order."""
    return (module for module in unet.modules() if isinstance(module, Attention))


def sizes_of(architecture: Architecture) -> dict[str, Any]:
    """What the families of original codes have in common, by diffusers' names."""
    return {
        "sample_size": architecture.image_size,
        "in_channels": architecture.in_channels,
        "out_channels": architecture.in_channels,
        "block_out_channels": [architecture.channels * multiplier for multiplier in architecture.multipliers],
        "layers_per_block": architecture.blocks_per_level,
        "norm_num_groups": architecture.norm_groups,
    }


def attended_levels(architecture: Architecture) -> list[bool]:
    """Whether each level has attention, the finest first."""
    levels = range(len(architecture.multipliers))
    return [architecture.image_size >> level in architecture.attention_resolutions for level in levels]
