"""The backend `openvino`: integer inference on a CPU by OpenVINO, from the network's graph in ONNX."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import onnxscript  # noqa: F401  # with which the graph is written: absent, it is named as OpenVINO is
import openvino
import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel, UNet2DConditionOutput
from jaxtyping import Int, Shaped
from torch import Tensor, nn

from edadm.config.backends import DEFAULT
from edadm.deploy.backends.base import CpuBackend
from edadm.deploy.export.onnx import input_name, onnx_program
from edadm.errors import EdadmError
from edadm.kernels.dispatch import refuse_scattered
from edadm.networks.families import family_of
from edadm.networks.unet.base import UNet
from edadm.nn.on_cpu import StaysOnCpu
from edadm.nn.sound import pass_on_what_is_not_finite

CPU = torch.zeros(0)
SETTINGS = {
    "INFERENCE_PRECISION_HINT": "f32",  # else bf16 between the integers, where the processor has it
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # else inputs without a grid may be given one
}


class CompiledNetwork(StaysOnCpu):
    """A network that OpenVINO compiled, called as the U-Net of diffusers that it was.

    Args:
        compiled: from the graph of `onnx_program`.
        unet: the network in PyTorch.
        size: bytes of the graph.
    """

    def __init__(self, compiled: openvino.CompiledModel, unet: UNet, size: int):
        super().__init__()
        self.compiled = compiled
        self.signature = inspect.signature(type(unet).forward)
        self.names = self._places(unet)
        self.packed_bytes = size
        self.output = UNet2DConditionOutput if isinstance(unet, UNet2DConditionModel) else UNet2DOutput
        nothing = torch.zeros(0)  # in which pipelines look for the network's device and type
        self.place = nn.Parameter(nothing, requires_grad=False)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuses to be pickled.

        Raises:
            EdadmError: always.
        """
        raise EdadmError(
            f"a network by OpenVINO cannot be pickled; pickle one with backend '{DEFAULT}', or load the file "
            "again where it is needed"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledNetwork:
        """The same: a compiled network does not change, and cannot be copied."""
        return self

    def _places(self, unet: UNet) -> dict[str, str]:
        """The input of the graph for each argument, from the way in which the family calls its network."""
        family, listener = family_of(unet), _Listener()
        rows = family.inputs(unet).zeros()
        family.call(listener, rows)
        names = {id(tensor): input_name(name) for name, tensor in rows.tensors.items()}
        given, _ = self._given(listener.args, listener.named)
        return {place: names[id(tensor)] for place, tensor in given.items()}

    def _given(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """What a call says to the network, by names of arguments, and whether it asks for an object."""
        arguments = self.signature.bind(self, *args, **named).arguments
        del arguments["self"]
        is_object = bool(arguments.pop("return_dict", True))
        return dict(_leaves(arguments)), is_object

    @torch.compiler.disable
    def forward(self, *args: Any, **named: Any) -> Any:
        """The prediction, in the form that diffusers' network of this kind gives it.

        Raises:
            EdadmError: an argument that the graph does not have, or values that it does not take.
        """
        given, is_object = self._given(args, named)
        if unknown := given.keys() - self.names.keys():
            raise EdadmError(
                f"a network by OpenVINO takes no {min(unknown)}; leave it out, or load with "
                f"backend '{DEFAULT}'"
            )
        if absent := self.names.keys() - given.keys():
            raise EdadmError(f"a network by OpenVINO was given no {min(absent)}; give it one")
        count = len(given["sample"])
        rows = {name: self._row(place, given[place], count).numpy() for place, name in self.names.items()}
        prediction = torch.from_numpy(self.compiled(rows)[0])
        return self.output(prediction) if is_object else (prediction,)

    def _row(self, place: str, value: Any, count: int) -> Shaped[Tensor, " n *s"]:
        """An argument as the graph takes it.

        Raises:
            EdadmError: the graph takes other shapes, or whole numbers alone.
        """
        port = self.compiled.input(self.names[place])
        tensor = torch.as_tensor(value).detach()
        refuse_scattered(tensor, CPU)
        if len(port.partial_shape) == 1 and tensor.numel() == 1:
            tensor = tensor.reshape(1).expand(count)
        _, *axes = port.partial_shape
        taken = [count, *(-1 if axis.is_dynamic else axis.get_length() for axis in axes)]
        fits = all(size in (own, -1) for own, size in zip(tensor.shape, taken, strict=False))
        if tensor.dim() != len(taken) or not fits:
            raise EdadmError(
                f"a network by OpenVINO takes {place} of {_times(taken)} alone, not of "
                f"{_times(tensor.shape)}; load with backend '{DEFAULT}' for others"
            )
        is_float = port.element_type == openvino.Type.f32
        return (tensor.float() if is_float else _whole(place, tensor)).contiguous()


class _Listener(nn.Module):
    """In the place of a network, it keeps what it is called with."""

    args: tuple[Any, ...]
    named: dict[str, Any]

    def forward(self, *args: Any, **named: Any) -> tuple[Any, ...]:
        self.args, self.named = args, named
        return args


def _leaves(arguments: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Arguments by name, those within mappings, too, without such as pipelines give to say nothing."""
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif value is not None:
            yield prefix + name, value


def _times(shape: Sequence[int]) -> str:
    return " x ".join("any" if size == -1 else str(size) for size in shape)


def _whole(place: str, values: Tensor) -> Int[Tensor, "*s"]:
    """The same as whole numbers.

    What is not finite becomes 0; `pass_on_what_is_not_finite` sees to such images.

    Raises:
        EdadmError: one lies between two whole numbers.
    """
    finite = values.nan_to_num(0, 0, 0)
    whole = finite.long()
    if bool((between := whole.to(finite.dtype) != finite).any()):
        raise EdadmError(
            f"a network by OpenVINO takes whole numbers as {place}, not {finite[between][0].item():g}; "
            f"load with backend '{DEFAULT}' for others"
        )
    return whole


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
    graph = onnx_program(unet, for_pipelines=False).model_proto.SerializeToString()
    core = openvino.Core()
    settings = SETTINGS | {"INFERENCE_NUM_THREADS": str(torch.get_num_threads())}
    compiled = core.compile_model(core.read_model(graph), "CPU", settings)
    lowered = copy.deepcopy(unet, {id(child): nn.Identity() for child in unet.children()})
    for name, _ in list(lowered.named_children()):
        delattr(lowered, name)
    lowered.network = CompiledNetwork(compiled, unet, len(graph))
    lowered.forward = lowered.network.forward
    lowered.enable_freeu = _refuse_freeu
    if (added := getattr(unet, "add_embedding", None)) is not None:  # whose width pipelines of SDXL read
        width = SimpleNamespace(in_features=added.linear_1.in_features)
        lowered.add_embedding = SimpleNamespace(linear_1=width)
    pass_on_what_is_not_finite(lowered)
    return lowered


class OpenVino(CpuBackend):
    """The backend of OpenVINO's integer kernels for CPUs."""

    def lower_in_fp32(self, unet: UNet) -> UNet:
        """See `lower_for_openvino`."""
        return lower_for_openvino(unet)


BACKEND = OpenVino()
