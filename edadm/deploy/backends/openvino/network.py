"""A network that OpenVINO computes, called as the U-Net of diffusers that it was."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import openvino
import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel, UNet2DConditionOutput
from jaxtyping import Int, Shaped
from torch import Tensor, nn

from edadm.config.backends import DEFAULT
from edadm.deploy.backends.openvino.compiled import Graph
from edadm.errors import EdadmError
from edadm.kernels.dispatch import refuse_scattered
from edadm.networks.families import family_of
from edadm.networks.family import Network
from edadm.networks.inputs import MASK
from edadm.nn.on_cpu import StaysOnCpu

CPU = torch.zeros(0)


class CompiledNetwork(StaysOnCpu):
    """A network that OpenVINO compiled, called as the U-Net of diffusers that it was.

    Args:
        graph: of the network.
        unet: the network in PyTorch.
    """

    def __init__(self, graph: Graph, unet: Network):
        super().__init__()
        self.graph = graph
        self.signature = inspect.signature(type(unet).forward)
        self.names = self._places(unet)
        self.packed_bytes = graph.nbytes
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

    def _places(self, unet: Network) -> dict[str, str]:
        """The input of the graph for each argument, from the way in which the family calls its network."""
        family, listener = family_of(unet), _Listener()
        rows = family.inputs(unet).zeros()
        family.call(listener, rows)
        names = {id(tensor): name for name, tensor in rows.tensors.items()}
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
        prediction = torch.from_numpy(self.graph(rows))
        return self.output(prediction) if is_object else (prediction,)

    def _row(self, place: str, value: Any, count: int) -> Shaped[Tensor, " n *s"]:
        """An argument as the graph takes it.

        Raises:
            EdadmError: the graph takes other shapes, or whole numbers alone.
        """
        port = self.graph.model.input(self.names[place])
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


def refuse_joined(unet: Network) -> None:
    """Refuses a network that is called with another tensor than its graph takes.

    Raises:
        EdadmError: it is given an image behind the noise, a score beside its sizes, a class, or a mask of
            tokens, or predicts a flow, at timesteps between whole numbers.
    """
    family, listener = family_of(unet), _Listener()
    if family.predictions == ("flow",):
        raise EdadmError(
            f"a network of the family '{family.name}' is evaluated at fractions of timesteps, and is not "
            f"computed by OpenVINO; load it with backend 'onednn' or '{DEFAULT}'"
        )
    inputs = family.inputs(unet)
    if MASK in inputs.shapes:
        raise EdadmError(
            f"a network of the family '{family.name}' is told a text with a mask, and is not computed by "
            f"OpenVINO; load it with backend 'onednn' or '{DEFAULT}'"
        )
    rows = inputs.zeros()
    family.call(listener, rows)
    graph = {id(tensor) for tensor in rows.tensors.values()}
    positional = {str(place): value for place, value in enumerate(listener.args)}
    given = dict(_leaves(positional | listener.named)).values()
    if any(isinstance(tensor, Tensor) and id(tensor) not in graph for tensor in given):
        raise EdadmError(
            f"a network of the family '{family.name}' that is given an image, a score or a class is not "
            f"computed by OpenVINO; load it with backend 'onednn' or '{DEFAULT}'"
        )
