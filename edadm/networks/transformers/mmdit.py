"""The diffusion transformer of two streams, MMDiT (arXiv 2403.03206), as diffusers computes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from diffusers.models.attention import JointTransformerBlock
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from jaxtyping import Float
from torch import Tensor, nn

from edadm.networks.family import Coupling, Family, UnitKind
from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.unit_names import JOINT_BLOCK


class MMDit(Family):
    """Stable Diffusion 3's and 3.5's transformers, in which patches and tokens of a text attend to both.

    A block is a unit, and what it makes of both streams is learned together. Query, key and value of both
    streams, after their norms, are one operand each with one grid, since the product with the values sums
    over the tokens of both. The layers that embed the timestep and the pooled text, of numbers that no image
    has changed, stay in floating point.
    """

    name = "mmdit"
    classes: ClassVar[tuple[type[nn.Module], ...]] = (SD3Transformer2DModel,)
    predictions: ClassVar[tuple[str, ...]] = ("flow",)
    kinds: ClassVar[Sequence[UnitKind]] = (
        UnitKind(
            "transformer",
            JointTransformerBlock,
            registered=JOINT_BLOCK,
            executed=JOINT_BLOCK,
            channel_axis=-1,
        ),
    )

    def build(self, architecture: Architecture) -> SD3Transformer2DModel:
        """A randomly initialised transformer; its places are a parameter, so that packed files hold them."""
        heads = architecture.heads
        assert heads is not None
        network = SD3Transformer2DModel(
            sample_size=architecture.image_size,
            patch_size=architecture.patch,
            in_channels=architecture.in_channels,
            out_channels=architecture.in_channels,
            num_layers=architecture.blocks,
            num_attention_heads=heads,
            attention_head_dim=architecture.channels // heads,
            joint_attention_dim=architecture.context_channels,
            caption_projection_dim=architecture.channels,
            pooled_projection_dim=architecture.pooled_channels,
            pos_embed_max_size=architecture.places,
            dual_attention_layers=architecture.dual_blocks or (),
            qk_norm=architecture.qk_norm,
        )
        network.family = self.name
        patches: Any = network.pos_embed
        places = patches.pos_embed
        del patches.pos_embed
        patches.pos_embed = nn.Parameter(places, requires_grad=False)
        return network

    def inputs(self, network: nn.Module) -> InputSpec:
        settings: Any = network.config
        size = settings["sample_size"]
        shapes: dict[str, tuple[int, ...]] = {
            "latents": (settings["in_channels"], size, size),
            "timesteps": (),
            "context": (1, settings["joint_attention_dim"]),
            "pooled": (settings["pooled_projection_dim"],),
        }
        return InputSpec(shapes)

    def call(self, network: nn.Module, rows: Rows) -> Float[Tensor, " n *s"]:
        told = (rows.tensors["context"], rows.tensors["pooled"])
        predicted: Tensor = network(rows.latents, *told, rows.timesteps, return_dict=False)[0]
        return predicted

    def feature_module(self, network: nn.Module) -> nn.Module:
        """The first block of the second half; the patches that it is given are the feature."""
        blocks: Any = network.transformer_blocks
        found: nn.Module = blocks[len(blocks) // 2]
        return found

    def concatenations(self, network: nn.Module) -> Mapping[str, tuple[int, ...]]:
        return {}

    def couplings(self, network: nn.Module) -> Sequence[Coupling]:
        """The norms of each stream, none with a gain of its own, and the layers that each feeds.

        A second attention is fed through another modulation than the first one, and so stands apart.
        """
        return [*_couplings(network), Coupling("norm_out.norm", ("proj_out",), is_linear=False)]

    def floats(self, network: nn.Module) -> frozenset[str]:
        """The layers that embed a timestep and a pooled text."""
        return frozenset(name for name, _ in network.named_modules() if name.startswith("time_text_embed."))


def _couplings(network: nn.Module) -> Iterator[Coupling]:
    for name, module in network.named_modules():
        if not isinstance(module, JointTransformerBlock):
            continue
        block: Any = module
        fed: dict[str, list[tuple[str, ...]]] = {
            "norm1.norm": [("attn.to_q", "attn.to_k", "attn.to_v")],
            "norm1_context.norm": [("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")],
            "norm2": [("ff.net.0.proj",)],
        }
        if block.use_dual_attention:
            fed["norm1.norm"].append(("attn2.to_q", "attn2.to_k", "attn2.to_v"))
        if not block.context_pre_only:
            fed["norm2_context"] = [("ff_context.net.0.proj",)]
        for norm, groups in fed.items():
            for layers in groups:
                yield Coupling(f"{name}.{norm}", tuple(f"{name}.{layer}" for layer in layers), False)


FAMILY = MMDit()
