"""Quantized networks as diffusers models that know how they are saved, alone or inside a pipeline.

diffusers writes the module and class of each part of a pipeline into its `model_index.json`, and loads it
from there: so a saved pipeline with such a U-Net is loaded by `from_pretrained` wherever this package is
installed. It finds `ModelMixin` by that name in this module, too.
"""

from __future__ import annotations

from typing import TypeAlias

import diffusers
from diffusers import (
    DiTTransformer2DModel,
    ModelMixin,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
)

from edadm.deploy.checkpoint import Facts
from edadm.deploy.diffusers.adapters import Adapters
from edadm.deploy.diffusers.calls import KeptGrids
from edadm.deploy.diffusers.folders import WEIGHTS, Folders
from edadm.deploy.diffusers.states import States, is_rounded
from edadm.networks.family import Network
from edadm.registration import METHOD

__all__ = [
    "WEIGHTS",
    "ModelMixin",
    "QuantizedDiTTransformer2DModel",
    "QuantizedPixArtTransformer2DModel",
    "QuantizedSD3Transformer2DModel",
    "QuantizedUNet",
    "QuantizedUNet2DConditionModel",
    "QuantizedUNet2DModel",
    "as_diffusers_model",
]


class _EqualToItsBase(type):
    """The type of classes that are equal to the class of diffusers which they extend.

    A pipeline's `from_pipe` takes a network over if its class is among those that the new pipeline names. A
    class that extends one of them is not, and the network would be left behind.
    """

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.__bases__[-1]

    __hash__ = type.__hash__


class QuantizedUNet2DModel(KeptGrids, Adapters, States, Folders, UNet2DModel, metaclass=_EqualToItsBase):
    """A quantized U-Net without condition, or with none but the timestep."""


class QuantizedUNet2DConditionModel(
    KeptGrids, Adapters, States, Folders, UNet2DConditionModel, metaclass=_EqualToItsBase
):
    """A quantized U-Net with a context."""


class QuantizedDiTTransformer2DModel(
    KeptGrids, Adapters, States, Folders, DiTTransformer2DModel, metaclass=_EqualToItsBase
):
    """A quantized transformer that is told a class."""


class QuantizedSD3Transformer2DModel(
    KeptGrids, Adapters, States, Folders, SD3Transformer2DModel, metaclass=_EqualToItsBase
):
    """A quantized transformer of patches and tokens of a text."""


class QuantizedPixArtTransformer2DModel(
    KeptGrids, Adapters, States, Folders, PixArtTransformer2DModel, metaclass=_EqualToItsBase
):
    """A quantized transformer that is told a text by T5's states."""


QuantizedUNet: TypeAlias = (
    QuantizedUNet2DModel
    | QuantizedUNet2DConditionModel
    | QuantizedDiTTransformer2DModel
    | QuantizedSD3Transformer2DModel
    | QuantizedPixArtTransformer2DModel
)
_KNOWN = (
    QuantizedUNet2DModel,
    QuantizedUNet2DConditionModel,
    QuantizedDiTTransformer2DModel,
    QuantizedSD3Transformer2DModel,
    QuantizedPixArtTransformer2DModel,
)

for known in _KNOWN:
    setattr(diffusers, known.__name__, known)  # where `AutoModel` looks for the class that a folder names


def as_diffusers_model(unet: Network, facts: Facts, backend: str) -> QuantizedUNet:
    """The same network, whose class now saves and loads packed codes.

    Its `config` says `quantization_config: {quant_method: edadm}`, upon which diffusers without this package
    refuses the folder
    instead of filling a network with whatever names it knows.
    """
    unet.__class__ = next(
        (own for own in _KNOWN if isinstance(unet, own.__bases__[-1])), QuantizedUNet2DModel
    )
    unet.facts, unet.backend, unet.was_cast = facts, backend, is_rounded(unet)
    unet.register_to_config(quantization_config={"quant_method": METHOD, "bits": facts["bits"]})
    return unet
