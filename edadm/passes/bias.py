"""Bias correction: what quantization adds to the mean of every layer's output is taken off its bias.

The idea is of Nagel et al. (arXiv 1906.04721, section 4.2), with means over calibration rows instead of batch
norm statistics. It is no part of EDA-DM.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edadm.errors import EdadmError
from edadm.learning.capture.arguments import Arguments
from edadm.learning.capture.data import UnitData
from edadm.learning.engine import UnitReport, unit_errors
from edadm.learning.task import Task
from edadm.networks.units.unit import Unit
from edadm.nn.insert import quantized_layers
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer
from edadm.passes.base import Pass


@torch.no_grad()
def correct_bias(
    float_module: nn.Module,
    quantized_module: nn.Module,
    layers: Sequence[str],
    float_arguments: Arguments,
    quantized_arguments: Arguments,
    batch_size: int,
) -> dict[str, Float[Tensor, " channels"]]:
    """Corrects the biases of a quantized unit or network in place, after its rounding is decided.

    From a layer's bias goes the mean, per output channel, over rows and positions, of its output in the
    quantized module less that in the float module. Layers are corrected in the order in which the float
    module runs them, each on what the corrected ones before it let through: one pass over the rows for each.
    The float module, with which quantized layers share their parameters, is left as it is: a corrected layer
    gets a new bias.

    Args:
        float_module: the unit in full precision.
        quantized_module: the same unit, quantized.
        layers: names within the unit, in any order; "" is the unit itself. Those without a bias are left as
            they are, since a checkpoint has no place for one.
        float_arguments: what the float unit is called with, over all calibration rows; for a network with
            `return_dict: False`.
        quantized_arguments: likewise of the quantized unit, usually from the quantized network before it.
        batch_size: rows per pass.

    Returns:
        The new biases by name of the layer, in the order of correction.

    Raises:
        EdadmError: a name is not that of a quantized layer, or the unit never runs the layer.
    """
    quantized = {name: _quantized_layer(quantized_module, name) for name in layers}
    axes = {
        name: 1 if isinstance(layer, QuantizedConv2d) else -1
        for name, layer in quantized.items()
        if layer.bias is not None
    }
    wanted = _means(float_module, axes, float_arguments, batch_size)
    if absent := [name for name in axes if name not in wanted]:
        raise EdadmError(f"bias correction: the unit never runs '{absent[0]}'; leave it out")
    corrected = {}
    for name, mean in wanted.items():
        bias = quantized[name].bias
        assert bias is not None
        found = _means(quantized_module, {name: axes[name]}, quantized_arguments, batch_size)[name]
        corrected[name] = (bias.double() + mean - found).to(bias.dtype)
        quantized[name].bias = nn.Parameter(corrected[name], requires_grad=False)
    return corrected


def _quantized_layer(module: nn.Module, name: str) -> QuantizedLayer:
    layer = module.get_submodule(name)
    if not isinstance(layer, QuantizedLayer):
        raise EdadmError(
            f"bias correction: '{name}' is no quantized layer; name layers of `quantized_layers` only"
        )
    return layer


def _means(
    module: nn.Module, axes: dict[str, int], arguments: Arguments, batch_size: int
) -> dict[str, Tensor]:
    """The means of layers' outputs per channel, in fp64, in the order in which the module runs the layers.

    Args:
        module: holds the layers.
        axes: of channels in a layer's output, by name of the layer.
        arguments: of the module, over all rows.
        batch_size: rows per pass.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    with _listening(module, axes, sums, counts):
        for start in range(0, len(arguments.tensors[arguments.main]), batch_size):
            arguments.rows(slice(start, start + batch_size)).call(module)
    return {name: total / counts[name] for name, total in sums.items()}


@contextmanager
def _listening(
    module: nn.Module, axes: dict[str, int], sums: dict[str, Tensor], counts: dict[str, int]
) -> Iterator[None]:
    """Inside the context a layer's outputs are added up per channel, and their rows and positions counted."""

    def add(name: str, output: Tensor) -> None:
        channels_last = output.movedim(axes[name], -1).flatten(0, -2).double()
        sums[name] = sums.get(name, 0) + channels_last.sum(0)
        counts[name] = counts.get(name, 0) + len(channels_last)

    handles = [
        module.get_submodule(name).register_forward_hook(lambda _, inputs, out, n=name: add(n, out))
        for name in axes
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def correct_bias_of_unit(task: Task, unit: Unit, data: UnitData, report: UnitReport) -> UnitReport:
    """Corrects the biases of a learned unit if the settings want that.

    Returns:
        its report, whose errors after learning are those with the new biases.
    """
    if not task.settings.bias_correction:
        return report
    size, learned = task.settings.chain_batch_size, slice(0, data.learned)
    float_module = task.float_unet.get_submodule(unit.name)
    module = task.quantized_unet.get_submodule(unit.name)
    arguments = data.exact.rows(learned), data.quantized.rows(learned)
    correct_bias(float_module, module, list(quantized_layers(module)), *arguments, size)
    after, held_out_after = unit_errors(module, data, size)
    return dataclasses.replace(report, after=after, held_out_after=held_out_after)


CORRECT_BIAS = Pass(
    frozenset({"codes", "rows", "biases"}), frozenset({"biases"}), after_unit=correct_bias_of_unit
)
