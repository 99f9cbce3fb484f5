"""The backend `openvino`: integer inference on a CPU by OpenVINO, from the network's graph in ONNX."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import openvino
import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel, UNet2DConditionOutput
from jaxtyping import Int
from torch import Tensor, nn

from edadm.config.backends import DEFAULT
from edadm.deploy.backends.base import Backend
from edadm.deploy.export.onnx import onnx_program
from edadm.errors import EdadmError
from edadm.networks.unet.base import UNet
from edadm.nn.layers import QuantizedLayer
from edadm.nn.sound import pass_on_what_is_not_finite

_SETTINGS = {
    "INFERENCE_PRECISION_HINT": "f32",  # else bf16 between the integers, where the processor has it
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # else inputs without a grid may be given one
}
_INPUTS = {  # names of arguments, and of the graph's inputs
    "sample": "sample",
    "timestep": "timestep",
    "encoder_hidden_states": "context",
}


class CompiledNetwork(nn.Module):
    """A network that OpenVINO compiled, called as the U-Net of diffusers that it was.

    Args:
        compiled: from the graph of `onnx_program`.
        unet: the network in PyTorch.
    """

    def __init__(self, compiled: openvino.CompiledModel, unet: UNet):
        super().__init__()
        self.compiled = compiled
        self.signature = inspect.signature(type(unet).forward)
        self.output = UNet2DConditionOutput if isinstance(unet, UNet2DConditionModel) else UNet2DOutput
        size = unet.config["sample_size"]
        self.latent_shape = (unet.config["in_channels"], size, size)
        nothing = torch.zeros(0)  # in which pipelines look for the network's device and type
        self.place = nn.Parameter(nothing, requires_grad=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledNetwork:
        """The same: a compiled network does not change, and cannot be copied."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CompiledNetwork:
        """Refuses to move or to be cast.

        Raises:
            EdadmError: the network is moved or cast.
        """
        after = fn(torch.zeros(1))
        if after.device.type != "cpu" or after.dtype != torch.float32:
            raise EdadmError(
                f"a network by OpenVINO stays on the CPU and in fp32, and cannot go to {after.device.type} "
                f"in {after.dtype}; load it there anew, with backend '{DEFAULT}'"
            )
        return self

    @torch.compiler.disable
    def forward(self, *args: Any, **named: Any) -> Any:
        """The prediction, in the form that diffusers' network of this kind gives it.

        Raises:
            EdadmError: an argument that the graph does not have, or values that it does not take.
        """
        given = self.signature.bind(self, *args, **named).arguments
        as_object = given.pop("return_dict", True)
        del given["self"]
        if unknown := [name for name, value in given.items() if name not in _INPUTS and _says(value)]:
            raise EdadmError(
                f"a network by OpenVINO takes no {unknown[0]}; leave it out, or load with backend '{DEFAULT}'"
            )
        sample = given["sample"]
        if (shape := tuple(sample.shape[1:])) != self.latent_shape:
            raise EdadmError(
                f"a network by OpenVINO takes latents of {_times(self.latent_shape)} alone, not of "
                f"{_times(shape)}; load with backend '{DEFAULT}' for others"
            )
        given["timestep"] = _whole(given["timestep"], len(sample))
        rows = {
            _INPUTS[name]: tensor.detach().contiguous().numpy()
            for name, tensor in given.items()
            if name in _INPUTS
        }
        prediction = torch.from_numpy(self.compiled(rows)[0])
        return self.output(prediction) if as_object else (prediction,)


def _says(argument: Any) -> bool:
    """Whether an argument is more than a place that pipelines fill."""
    return argument is not None and argument != {}


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _whole(timestep: Any, count: int) -> Int[Tensor, " n"]:
    """A timestep or a row of them as whole numbers, one for each of `count` images.

    What is not finite becomes 0; `pass_on_what_is_not_finite` sees to such images.

    Raises:
        EdadmError: one lies between two whole numbers.
    """
    timesteps = torch.as_tensor(timestep).reshape(-1).nan_to_num(0, 0, 0)
    whole = timesteps.long()
    if not torch.equal(whole.to(timesteps.dtype), timesteps):
        raise EdadmError(
            f"a network by OpenVINO takes whole timesteps, not {timesteps[whole != timesteps][0].item():g}; "
            f"take another scheduler, or load with backend '{DEFAULT}'"
        )
    return whole.expand(count)


def _refuse_freeu(*scales: Any, **named: Any) -> None:
    """Refuses FreeU, which changes what lies between blocks.

    Raises:
        EdadmError: always.
    """
    raise EdadmError(f"a network by OpenVINO has no blocks for FreeU; load with backend '{DEFAULT}' for that")


def lower_for_openvino(unet: UNet) -> UNet:
    """A quantized U-Net without its modules, whose predictions are made by OpenVINO.

    The graph has all grids, attention's, too, and weights of which no two products leave int16, so that sums
    are those of the codes on every processor. It is called like the original, for any batch size and number
    of tokens, but with the original's size of latents and with whole timesteps. Its threads are as many as
    PyTorch has now.

    Args:
        unet: a quantized U-Net on the CPU, from `edadm.deploy.checkpoint.load_quantized`; left as it was.

    Raises:
        EdadmError: as `onnx_program`.
    """
    graph = onnx_program(unet).model_proto.SerializeToString()
    core = openvino.Core()
    settings = _SETTINGS | {"INFERENCE_NUM_THREADS": str(torch.get_num_threads())}
    compiled = core.compile_model(core.read_model(graph), "CPU", settings)
    lowered = copy.deepcopy(unet, {id(child): nn.Identity() for child in unet.children()})
    for name, _ in list(lowered.named_children()):
        delattr(lowered, name)
    lowered.network = CompiledNetwork(compiled, unet)
    lowered.forward = lowered.network.forward
    lowered.enable_freeu = _refuse_freeu
    pass_on_what_is_not_finite(lowered)
    return lowered


class OpenVino(Backend):
    """The backend of OpenVINO's integer kernels for CPUs."""

    def runs(self, layer: QuantizedLayer) -> bool:
        """Whether the input of a layer is on a grid; other layers are computed in floating point."""
        return layer.input_quantizer is not None

    def lower(self, unet: UNet, dtype: torch.dtype) -> UNet:
        """See `lower_for_openvino`.

        Raises:
            EdadmError: another type than fp32.
        """
        if dtype != torch.float32:
            raise EdadmError(
                f"OpenVINO computes in fp32 between integers here; load with dtype torch.float32, not {dtype}"
            )
        return lower_for_openvino(unet)


BACKEND = OpenVino()
