"""Modules that are one operation to `torch.export`, and nodes of their own choice in the ONNX graph.

The exporter traces every operation of a network with symbols for its sizes, most of them several times. A
leaf is traced once, and says itself what its output's sizes are and which nodes it becomes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

_KNOWN: WeakValueDictionary[int, Leaf] = WeakValueDictionary()


class Leaf(nn.Module):
    """A module of one tensor.

    Attributes:
        advance: told 1 when it is traced, and again when it is written.
    """

    advance: Callable[[int], None] = staticmethod(lambda count: None)

    def forward(self, x: Tensor) -> Tensor:
        """One operation, which knows its module by number."""
        self.advance(1)
        _KNOWN[id(self)] = self
        output: Tensor = torch.ops.edadm.leaf(x, id(self))
        return output

    def shape(self, x: Tensor) -> list[Any]:
        """The sizes of the output, integers or symbols; as of the input if a subclass says nothing else."""
        return list(x.shape)

    def write(self, x: Any) -> Any:
        """The value behind the leaf's nodes, given the value before them."""
        raise TypeError("a subclass says which nodes it is")


@torch.library.custom_op("edadm::leaf", mutates_args=(), schema="(Tensor x, int number) -> Tensor")
def leaf(x: Tensor, number: int) -> Tensor:
    """The place of a leaf in a traced program."""
    raise TypeError("leaves are traced and written, not computed")


@leaf.register_fake
def _(x: Tensor, number: int) -> Tensor:
    return x.new_empty(_KNOWN[number].shape(x))


class NormLeaf(Leaf):
    """A norm of groups of channels as ONNX has it since opset 21."""

    def __init__(self, norm: nn.GroupNorm):
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        ones = torch.ones(norm.num_channels)
        self.weight = nn.Parameter(ones, requires_grad=False) if norm.weight is None else norm.weight
        self.bias = nn.Parameter(0 * ones, requires_grad=False) if norm.bias is None else norm.bias

    def write(self, x: Any) -> Any:
        gains = constant(self.weight), constant(self.bias)
        return operators().GroupNormalization(x, *gains, num_groups=self.groups, epsilon=self.eps)


def operators() -> Any:
    """onnxscript's functions, which write nodes of opset 21 while a program is translated."""
    from onnxscript import opset21

    return opset21


def constant(values: Tensor) -> Any:
    """A constant of the graph."""
    import onnx_ir

    return operators().Constant(value=onnx_ir.tensor(values.detach().cpu().numpy()))


def _written(x: Any, number: int) -> Any:
    _KNOWN[number].advance(1)
    return _KNOWN[number].write(x)


def _cast(x: Any, dtype: int, non_blocking: bool = False, copy: bool = False, memory_format: str = "") -> Any:
    """Named as ATen names what it takes."""
    return operators().Cast(x, to=dtype)


def translations() -> dict[Any, Any]:
    """What `torch.onnx.export` needs to know of leaves, and of what is usually decomposed before it."""
    aten: Any = torch.ops.aten
    return {torch.ops.edadm.leaf.default: _written, aten.to.dtype: _cast}
