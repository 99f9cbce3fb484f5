"""The diffusion transformer DiT (arXiv 2212.09748) as diffusers computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from jaxtyping import Float
from torch import Tensor, nn

from edadm.networks.family import Coupling, Family, UnitKind
from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.transformers.blocks import KINDS, as_built_here, couplings_of, middle_of


class Dit(Family):
    """Transformers that are told a class, by adaLN-zero in every block.

    Each block embeds the timestep and the class by itself, and the last layer takes what the first block's
    embedding gives: these embeddings, of numbers that no image has changed, stay in floating point. Where
    the network predicts a variance behind the noise, that is left out.
    """

    name = "dit"
    classes: ClassVar[tuple[type[nn.Module], ...]] = (DiTTransformer2DModel,)
    layouts = ("dit",)
    kinds: ClassVar[Sequence[UnitKind]] = KINDS

    def build(self, architecture: Architecture) -> DiTTransformer2DModel:
        """A randomly initialised transformer; its positions are a parameter, so that files hold them."""
        heads = architecture.heads
        assert heads is not None
        network = DiTTransformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=architecture.channels // heads,
            in_channels=architecture.in_channels,
            out_channels=architecture.out_channels,
            num_layers=architecture.blocks,
            sample_size=architecture.image_size,
            patch_size=architecture.patch,
            num_embeds_ada_norm=architecture.classes,
        )
        return as_built_here(network, self.name)

    def inputs(self, network: nn.Module) -> InputSpec:
        settings: Any = network.config
        size = settings["sample_size"]
        return InputSpec({"latents": (settings["in_channels"], size, size), "timesteps": (), "labels": (1,)})

    def call(self, network: nn.Module, rows: Rows) -> Float[Tensor, " n *s"]:
        labels = rows.tensors["labels"][:, 0]
        predicted: Tensor = network(rows.latents, rows.timesteps, labels, return_dict=False)[0]
        return predicted[:, : rows.latents.shape[1]]

    def feature_module(self, network: nn.Module) -> nn.Module:
        return middle_of(network)

    def concatenations(self, network: nn.Module) -> Mapping[str, tuple[int, ...]]:
        return {}

    def couplings(self, network: nn.Module) -> Sequence[Coupling]:
        return [*couplings_of(network), Coupling("norm_out", ("proj_out_2",), is_linear=False)]

    def floats(self, network: nn.Module) -> frozenset[str]:
        """The layers that embed a timestep."""
        return frozenset(name for name, _ in network.named_modules() if ".norm1.emb." in name)


FAMILY = Dit()
