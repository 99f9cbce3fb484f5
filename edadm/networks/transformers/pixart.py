"""The diffusion transformers PixArt-alpha (arXiv 2310.00426) and PixArt-Sigma (arXiv 2403.04692)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from jaxtyping import Float
from torch import Tensor, nn

from edadm.networks.family import Coupling, Family, UnitKind
from edadm.networks.inputs import MASK, InputSpec, Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.unit_names import SHARED_ADAPTIVE_BLOCK
from edadm.networks.transformers.blocks import as_built_here, middle_of

_SIZE = 2  # numbers that tell the size of an image: its height and width


class PixArt(Family):
    """Transformers that are told a text by cross-attention, and the timestep by adaLN-single.

    One layer makes the modulation of all blocks of an embedding of the timestep, to which each block adds a
    table of its own; that embedding, of numbers that no image has changed, stays in floating point. The text
    is projected once. Where the network predicts a variance behind the noise, that is left out.
    """

    name = "pixart"
    classes: ClassVar[tuple[type[nn.Module], ...]] = (PixArtTransformer2DModel,)
    layouts = ("pixart",)
    kinds: ClassVar[Sequence[UnitKind]] = (
        UnitKind(
            "transformer",
            BasicTransformerBlock,
            registered=SHARED_ADAPTIVE_BLOCK,
            executed=SHARED_ADAPTIVE_BLOCK,
            channel_axis=-1,
        ),
    )

    def build(self, architecture: Architecture) -> PixArtTransformer2DModel:
        """A randomly initialised transformer; its positions are a parameter, so that files hold them."""
        heads = architecture.heads
        assert heads is not None
        settings: dict[str, Any] = {"interpolation_scale": architecture.position_scale or 1}
        network = PixArtTransformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=architecture.channels // heads,
            in_channels=architecture.in_channels,
            out_channels=architecture.out_channels or architecture.in_channels,
            num_layers=architecture.blocks or 0,
            cross_attention_dim=architecture.channels,
            sample_size=architecture.image_size,
            patch_size=architecture.patch or 1,
            caption_channels=architecture.context_channels,
            use_additional_conditions=bool(architecture.size_told),
            **settings,
        )
        return as_built_here(network, self.name)

    def inputs(self, network: nn.Module) -> InputSpec:
        settings: Any = network.config
        side = settings["sample_size"]
        shapes: dict[str, tuple[int, ...]] = {
            "latents": (settings["in_channels"], side, side),
            "timesteps": (),
            "context": (1, settings["caption_channels"]),
            MASK: (1,),
        }
        return InputSpec(shapes | ({"time_ids": (_SIZE,)} if network.use_additional_conditions else {}))

    def call(self, network: nn.Module, rows: Rows) -> Float[Tensor, " n *s"]:
        told = rows.tensors
        size = told.get("time_ids")
        added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if size is not None:
            size = size.to(rows.latents.dtype)
            added = {"resolution": size, "aspect_ratio": size[:, :1] / size[:, 1:].clamp(min=1)}
        given = (rows.latents, told["context"], rows.timesteps, added)
        predicted: Tensor = network(*given, encoder_attention_mask=told[MASK], return_dict=False)[0]
        return predicted[:, : rows.latents.shape[1]]

    def feature_module(self, network: nn.Module) -> nn.Module:
        return middle_of(network)

    def concatenations(self, network: nn.Module) -> Mapping[str, tuple[int, ...]]:
        return {}

    def couplings(self, network: nn.Module) -> Sequence[Coupling]:
        return [*_couplings(network), Coupling("norm_out", ("proj_out",), is_linear=False)]

    def floats(self, network: nn.Module) -> frozenset[str]:
        """The layers that embed a timestep, and the size of an image."""
        return frozenset(name for name, _ in network.named_modules() if name.startswith("adaln_single.emb."))


def _couplings(network: nn.Module) -> Iterator[Coupling]:
    """The norms of blocks, none with a gain of its own; attention over a text is fed by no norm."""
    for name, module in network.named_modules():
        if isinstance(module, BasicTransformerBlock):
            projections = tuple(f"{name}.attn1.{part}" for part in ("to_q", "to_k", "to_v"))
            yield Coupling(f"{name}.norm1", projections, is_linear=False)
            yield Coupling(f"{name}.norm2", (f"{name}.ff.net.0.proj",), is_linear=False)


FAMILY = PixArt()
