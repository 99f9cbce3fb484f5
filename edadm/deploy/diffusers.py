"""Quantized U-Nets as diffusers models that know how they are saved, alone or inside a pipeline.

diffusers writes the module and class of each part of a pipeline into its `model_index.json`, and loads it
from there: so a saved pipeline with such a U-Net is loaded by `from_pretrained` wherever this package is
installed. It finds `ModelMixin` by that name in this module, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from diffusers import ModelMixin, UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from edadm.config.backends import DEFAULT
from edadm.config.schema import Bits
from edadm.deploy.checkpoint import Facts, save_quantized
from edadm.errors import EdadmError
from edadm.networks.settings.architecture import UNetArchitecture
from edadm.networks.unet.base import UNet
from edadm.networks.weights import CheckpointError

__all__ = [
    "ModelMixin",
    "QuantizedUNet",
    "QuantizedUNet2DConditionModel",
    "QuantizedUNet2DModel",
    "as_diffusers_model",
]

METHOD = "edadm"
WEIGHTS = "diffusion_pytorch_model.safetensors"  # the name that diffusers gives the weights of every model


def is_cast(network: nn.Module) -> bool:
    """Whether parameters are in another type than a checkpoint holds them in."""
    return any(parameter.dtype != torch.float32 for parameter in network.parameters())


class _Packed:
    """A mixin that saves integer codes, and loads them, in place of diffusers' ways with float weights.

    Attributes:
        facts: what the checkpoint said of itself.
        backend: the name of the backend that it was loaded with.
        was_cast: whether what is not quantized was ever in half precision; casting back does not bring its
            bits back.
    """

    facts: Facts
    backend: str
    was_cast: bool

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Remembers a cast."""
        found = super()._apply(fn, recurse)  # type: ignore[misc]
        self.was_cast = self.was_cast or is_cast(self)  # type: ignore[arg-type]
        return found

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

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Writes `config.json` and the packed checkpoint into a folder.

        The checkpoint has the same bytes as the file the network came from.

        Raises:
            EdadmError: the network no longer holds all that a checkpoint does.
        """
        if self.backend != DEFAULT:
            raise EdadmError(
                f"a network with backend '{self.backend}' cannot be saved; load it with backend='{DEFAULT}' "
                "for that"
            )
        if self.was_cast:
            raise EdadmError(
                "a network cast to half precision has lost bits of its biases; load it with "
                "dtype=torch.float32 to save it"
            )
        folder = Path(save_directory)
        self.save_config(folder)  # type: ignore[attr-defined]
        architecture, bits = (
            UNetArchitecture.model_validate(self.facts["architecture"]),
            Bits.model_validate(self.facts["bits"]),
        )
        save_quantized(self, folder / WEIGHTS, architecture, bits, self.facts["provenance"])  # type: ignore[arg-type]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        subfolder: str = "",
        backend: str = DEFAULT,
        torch_dtype: torch.dtype | None = None,
        device_map: object = None,
        **loading: Any,
    ) -> QuantizedUNet:
        """Loads such a folder on this machine; see `edadm.load`.

        Args:
            pretrained_model_name_or_path: the folder.
            subfolder: of it, where the network lies.
            backend: as in `edadm.load`.
            torch_dtype: of what is not quantized; fp32 if None.
            device_map: not supported; the network fits one device.
            loading: how floating-point weights would be read, as diffusers' pipelines say to each of their
                parts; without effect.

        Raises:
            EdadmError: as `edadm.load`; a device map.
        """
        from edadm.deploy.load import load  # which needs these classes

        folder = Path(pretrained_model_name_or_path) / subfolder
        if not folder.is_dir():
            raise CheckpointError(f"there is no folder {folder} on this machine; download it first")
        if device_map is not None:
            raise EdadmError(
                "a quantized U-Net cannot be spread over devices; leave out device_map, and call .to(device)"
            )
        return load(folder, backend=backend, dtype=torch_dtype or torch.float32)


class QuantizedUNet2DModel(_Packed, UNet2DModel):
    """A quantized U-Net without condition, or with none but the timestep."""


class QuantizedUNet2DConditionModel(_Packed, UNet2DConditionModel):
    """A quantized U-Net with a context."""


QuantizedUNet: TypeAlias = QuantizedUNet2DModel | QuantizedUNet2DConditionModel


def as_diffusers_model(unet: UNet, facts: Facts, backend: str) -> QuantizedUNet:
    """The same network, whose class now saves and loads packed codes.

    Its `config` says `quantization_config: {quant_method: edadm}`, upon which diffusers without this package
    refuses the folder
    instead of filling a network with whatever names it knows.
    """
    conditional = isinstance(unet, UNet2DConditionModel)
    unet.__class__ = QuantizedUNet2DConditionModel if conditional else QuantizedUNet2DModel
    unet.facts, unet.backend, unet.was_cast = facts, backend, is_cast(unet)
    unet.register_to_config(quantization_config={"quant_method": METHOD, "bits": facts["bits"]})
    return unet
