"""The demand of a network's units for memory, measured on one row: tables, and storages of paused passes.

Both grow with the calibration rows. One row of input tells all, on any device: on `meta` nothing is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call

from edadm.config.methods import METHODS
from edadm.config.schema import Reconstruction
from edadm.learning.capture.arguments import Arguments
from edadm.learning.capture.data import inner_layers, listening
from edadm.learning.capture.pausing import PausedForward, PausingNetwork
from edadm.learning.capture.tables import INPUTS, LAYER, OTHERS, TARGET
from edadm.networks.inputs import Rows
from edadm.networks.units.unit import Unit
from edadm.nn.insert import quantized_layers
from edadm.offload.demand import Demand, UnitBytes
from edadm.offload.tracker import PeakTracker, StorageTracker

ROUNDING_BYTES = 20  # of a weight while it learns, fp32: its base, alpha, gradient, and Adam's two moments
FOLDED_BYTES = 5  # of a weight whose rounding is decided: its value beside the float one, and its code


def demand(
    float_unet: nn.Module,
    units: Sequence[Unit],
    inputs: Rows,
    settings: Reconstruction,
    rows: int | None = None,
) -> Demand:
    """The demand of a whole reconstruction; for a plan or before work starts.

    Args:
        float_unet, units, inputs, settings: see `unit_bytes`.
        rows: calibration and held-out rows, two per sample for a guided model; those of `inputs` by default.
    """
    found = unit_bytes(float_unet, units, inputs[:1], settings)
    return Demand(found, len(inputs) if rows is None else rows)


def work_bytes(needed: Demand, quantized_unet: nn.Module, settings: Reconstruction) -> int:
    """Device memory that learning takes beside what is kept, with codes and rounded weights of all units.

    Args:
        needed: by this reconstruction.
        quantized_unet: its weights still shared with the float network.
        settings: decide how many rows a pass and a step have.
    """
    weights = sum(layer.weight.numel() for layer in quantized_layers(quantized_unet).values())
    return FOLDED_BYTES * weights + needed.of_work(settings.batch_size, settings.chain_batch_size)


def unit_bytes(
    float_unet: nn.Module,
    units: Sequence[Unit],
    inputs: Rows,
    settings: Reconstruction,
) -> list[UnitBytes]:
    """The bytes of every unit, from one pass of the float network.

    Args:
        float_unet: the network, on any device; with `torch.device("meta"): build_network(architecture)` no
            memory is needed.
        units: as from `trace_units` (which takes a network on `meta`, too), those of `settings.method`.
        inputs: of the network, on its device; one row is enough.
        settings: decide which layers have an error of their own, and of how many networks passes wait: 2 in a
            chain, 1 where units learn from float inputs.
    """
    rows, units = len(inputs), [unit for unit in units if not unit.is_apart]
    networks = METHODS[settings.method].networks
    network = PausingNetwork(float_unet, [unit.name for unit in units])
    tracker = PeakTracker()
    try:
        with tracker:
            waiting = network.start(inputs)
        found = []
        for unit in units:
            module = float_unet.get_submodule(unit.name)
            found.append(
                _of_unit(module, unit, waiting, tracker, rows, inner_layers(unit, settings), networks)
            )
        return found
    finally:
        network.close()


def _of_unit(
    module: nn.Module,
    unit: Unit,
    waiting: PausedForward,
    tracker: PeakTracker,
    rows: int,
    inner: Sequence[str],
    networks: int,
) -> UnitBytes:
    """The bytes of the unit in front of a tracked pass, which then waits before the next one."""
    arguments = waiting.arguments()
    kept = tracker.bytes_alive()
    main = arguments.tensors[arguments.main]
    others = sum(tensor.nbytes for tensor in arguments.tensors.values()) - main.nbytes
    tables = {INPUTS: networks * (main.nbytes // rows), OTHERS: networks * (others // rows)}
    step = _kept_for_backward(module, arguments)
    tracker.most = 0
    with listening(module, inner) as outputs, tracker:
        tables[TARGET] = waiting.run_unit().nbytes // rows
        tables |= {LAYER + name: outputs[name].nbytes // rows for name in inner}
        outputs.clear()
        del arguments
        waiting.next_unit()
    weights = sum(parameter.numel() for parameter in module.parameters() if parameter.dim() > 1)
    return UnitBytes(
        unit.name,
        tables,
        networks * (kept // rows),
        tracker.most // rows,
        step // rows,
        ROUNDING_BYTES * weights,
    )


def _kept_for_backward(module: nn.Module, arguments: Arguments) -> int:
    """Bytes that autograd keeps of one forward whose weights want gradients, output included."""
    weights = {name: parameter.detach().requires_grad_(True) for name, parameter in module.named_parameters()}

    class _Learned(nn.Module):
        def forward(self, *positional: object, **named: object) -> object:
            return functional_call(module, weights, positional, named)

    with torch.enable_grad(), StorageTracker() as tracker:
        output = arguments.call(_Learned())
        assert output is not None
    return tracker.bytes_alive()
