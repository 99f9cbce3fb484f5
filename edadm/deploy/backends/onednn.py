"""The backend `onednn`: integer inference on a CPU, by the modules of `edadm.deploy.fuse.cpu`."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from diffusers.models.attention_processor import Attention

from edadm.deploy.backends.base import CpuBackend, computes_static_integers
from edadm.deploy.fuse.cpu import (
    CpuAttnProcessor,
    CpuConv2d,
    CpuJointAttnProcessor,
    CpuLayer,
    CpuLinear,
    CpuResnetBlock,
)
from edadm.deploy.fuse.cpu_transformed import CpuTransformedLinear
from edadm.errors import EdadmError
from edadm.networks.family import Network
from edadm.nn.insert import quantized_layers
from edadm.nn.joint import JointAttention
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer
from edadm.nn.sound import pass_on_what_is_not_finite
from edadm.nn.transformed import TransformedLinear
from edadm.quant.scheme import LOW_RANK, ROTATIONS, Scheme


def computes_with_integers(layer: QuantizedLayer) -> bool:
    """Whether the input of a layer is on a grid; other layers stay in floating point."""
    return layer.input_quantizer is not None


def _integer_layer(layer: QuantizedLayer) -> CpuLayer:
    """The layer that computes with the codes of one whose input is on a grid."""
    if isinstance(layer, TransformedLinear):
        return CpuTransformedLinear(layer)
    return (CpuConv2d if isinstance(layer, QuantizedConv2d) else CpuLinear)(layer)


def lower_for_cpu(unet: Network) -> Network:
    """A copy of a quantized U-Net that computes its layers with integers on a CPU.

    It is called like the original, for any batch size. Convolutions and linear layers multiply codes and add
    in int32; what lies between them is fp32. Layers whose input has no grid, normalisations, activations and
    both products of attention (on their grids) stay in floating point. `.compile()` fuses what lies between
    the layers.

    Args:
        unet: a quantized U-Net on the CPU, from `edadm.deploy.checkpoint.load_quantized`; parameters outside
            its layers are shared.

    Raises:
        EdadmError: the U-Net is elsewhere.
    """
    if (device := next(unet.parameters()).device.type) != "cpu":
        raise EdadmError(
            f"integer inference on a CPU needs the model there, not on '{device}'; load it with device 'cpu'"
        )
    memo: dict[int, Any] = {id(parameter): parameter for parameter in unet.parameters()}
    for layer in quantized_layers(unet).values():
        if computes_with_integers(layer):
            memo[id(layer)] = _integer_layer(layer)
    lowered = copy.deepcopy(unet, memo)
    for name, module in list(lowered.named_modules()):
        if CpuResnetBlock.fits(module):
            lowered.set_submodule(name, CpuResnetBlock(module))
        if isinstance(module, Attention) and not getattr(module, "operands_scaled", False):
            kind = CpuJointAttnProcessor if isinstance(module.processor, JointAttention) else CpuAttnProcessor
            Attention.set_processor(module, kind(module.processor))  # its own method would refuse
    pass_on_what_is_not_finite(lowered)
    return lowered


class OneDnn(CpuBackend):
    """The backend of CPUs: `edadm.kernels.cpu`'s convolutions."""

    def runs(self, scheme: Scheme) -> bool:
        """See `computes_static_integers`; and linear layers of `edadm.deploy.fuse.cpu_transformed`."""
        plain = tuple(name for name in scheme.transforms if name not in (*ROTATIONS, LOW_RANK))
        is_of_tokens = scheme.granularity == "token" and scheme.is_dynamic and scheme.is_symmetric
        kept = replace(scheme, transforms=plain)
        if is_of_tokens:
            kept = replace(kept, is_dynamic=False, is_symmetric=False)
        return computes_static_integers(kept)

    def lower_in_fp32(self, unet: Network) -> Network:
        """See `lower_for_cpu`."""
        return lower_for_cpu(unet)


BACKEND = OneDnn()
