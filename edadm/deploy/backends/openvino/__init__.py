"""The backend `openvino`: integer inference on a CPU by OpenVINO's kernels."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import openvino  # noqa: F401  # absent, it is named here
from torch import nn

from edadm.config.backends import DEFAULT
from edadm.deploy.backends.base import CpuBackend
from edadm.deploy.backends.openvino.compiled import Graph
from edadm.deploy.backends.openvino.network import CompiledNetwork, refuse_joined
from edadm.errors import EdadmError
from edadm.networks.family import Network
from edadm.nn.part import Part
from edadm.nn.sound import pass_on_what_is_not_finite


def _refuse_freeu(*scales: Any, **named: Any) -> None:
    """Refuses FreeU, which changes what lies between blocks.

    Raises:
        EdadmError: always.
    """
    raise EdadmError(f"a network by OpenVINO has no blocks for FreeU; load with backend '{DEFAULT}' for that")


def lower_for_openvino(unet: Network) -> Network:
    """A quantized U-Net without its modules, whose predictions are made by OpenVINO.

    The graph has all grids, attention's, too, and sums that are those of the codes on every processor. It is
    called like the original, for any batch size and number of tokens, but with the original's size of latents
    and with whole timesteps; for each shape it is compiled once. Its threads are as many as PyTorch has now.

    Args:
        unet: a quantized U-Net on the CPU, from `edadm.deploy.checkpoint.load_quantized`; left as it was.

    Raises:
        EdadmError: the network's inputs are joined before it is called.
    """
    refuse_joined(unet)
    graph = Graph(unet)
    lowered = copy.deepcopy(unet, {id(child): nn.Identity() for child in unet.children()})
    for name, _ in list(lowered.named_children()):
        delattr(lowered, name)
    lowered.conv_in = Part()  # whose weights a ControlNet asks for first, and is refused
    lowered.network = CompiledNetwork(graph, unet)
    lowered.forward = lowered.network.forward
    lowered.enable_freeu = _refuse_freeu
    if (added := getattr(unet, "add_embedding", None)) is not None:  # whose width pipelines of SDXL read
        width = SimpleNamespace(in_features=added.linear_1.in_features)
        lowered.add_embedding = SimpleNamespace(linear_1=width)
    pass_on_what_is_not_finite(lowered)
    return lowered


class OpenVino(CpuBackend):
    """The backend of OpenVINO's integer kernels for CPUs."""

    def lower_in_fp32(self, unet: Network) -> Network:
        """See `lower_for_openvino`."""
        return lower_for_openvino(unet)


BACKEND = OpenVino()
