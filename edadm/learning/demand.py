"""How many bytes reconstruction needs, from shapes alone: what a unit learns from, and what waits between units.

Both grow with the calibration rows. One row of input tells all, on any device: on `meta` nothing is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call

from edadm.config.methods import METHODS
from edadm.config.schema import Reconstruction
from edadm.learning.capture import PausedForward, PausingNetwork
from edadm.learning.data import Arguments, inner_layers, listening
from edadm.networks.inputs import Rows
from edadm.networks.unit import Unit
from edadm.offload.tracker import PeakTracker, StorageTracker

INPUTS, OTHERS, TARGET, LAYER = "inputs", "others", "target", "layer:"
ROUNDING_BYTES = 20  # of a weight while it learns, fp32: its base, alpha, gradient, and Adam's two moments
LEARNING_SHARE = 5.0  # of what the float unit would keep for a backward pass: an allowance for quantizers, masks and gradients


@dataclass(frozen=True)
class UnitBytes:
    """Bytes of one unit; per calibration row unless said otherwise.

    Attributes:
        unit: which one.
        inputs: main argument, in one network.
        others: further arguments (time embedding, context), in one network.
        targets: outputs by table: `target` of the unit, `layer:NAME` of inner layers with an error of their
            own.
        waiting: what a pass of one network holds while it waits before the unit: its arguments, skips,
            embeddings.
        forward: most that one pass holds at once on its way from here to the next unit, `waiting` included.
        learning: an estimate of the activations of one row in a learning step.
        rounding: of the unit's weights while their rounding is learned; not per row.
    """

    unit: Unit
    inputs: int
    others: int
    targets: dict[str, int]
    waiting: int
    forward: int
    learning: int
    rounding: int

    def tables(self, networks: int = 2) -> dict[str, int]:
        """Bytes per row of each table the unit learns from; `networks` is 1 where units learn from float inputs."""
        return {INPUTS: networks * self.inputs, OTHERS: networks * self.others, **self.targets}


@dataclass(frozen=True)
class Demand:
    """Bytes of a whole reconstruction.

    Attributes:
        units: all units in order of execution.
        rows: calibration and held-out rows; a guided model has two per sample.
        networks: passes of so many networks wait: 2 in a chain, 1 with inputs of the float network.
    """

    units: Sequence[UnitBytes]
    rows: int
    networks: int = 2

    def of_tables(self, unit: UnitBytes) -> int:
        """All that a unit learns from."""
        return self.rows * sum(unit.tables(self.networks).values())

    def of_passes(self, unit: UnitBytes) -> int:
        """All that waits while the unit learns."""
        return self.rows * self.networks * unit.waiting

    def largest_unit(self) -> UnitBytes:
        """The unit that learns from most."""
        return max(self.units, key=self.of_tables)

    def peak(self) -> UnitBytes:
        """The unit at which most is kept, its tables and the waiting passes together."""
        return max(self.units, key=lambda unit: self.of_tables(unit) + self.of_passes(unit))

    def of_peak(self) -> int:
        """Most that is kept at once; the memory budget divides it among GPU, host and disk."""
        return self.of_tables(self.peak()) + self.of_passes(self.peak())

    def of_work(self, settings: Reconstruction) -> int:
        """Most that a batch of passes or a learning step takes on the device beside what is kept; weights are not counted."""
        learning = (
            unit.rounding + int(LEARNING_SHARE * unit.learning) * settings.batch_size for unit in self.units
        )
        return max(*learning, *(unit.forward * settings.chain_batch_size for unit in self.units))


def unit_bytes(
    float_unet: nn.Module, units: Sequence[Unit], inputs: Rows, settings: Reconstruction
) -> list[UnitBytes]:
    """The bytes of every unit, from one pass of the float network.

    Args:
        float_unet: the network, on any device; with `torch.device("meta"): build_unet(architecture)` no
            memory is needed.
        units: as from `trace_units` (which takes a network on `meta`, too), those of `settings.method`.
        inputs: of the network, on its device; one row is enough.
        settings: decide which layers have an error of their own.
    """
    rows = len(inputs)
    network = PausingNetwork(float_unet, [unit.name for unit in units])
    tracker = PeakTracker()
    try:
        with tracker:
            waiting = network.start(inputs)
        return [
            _of_unit(float_unet.get_submodule(unit.name), unit, waiting, tracker, rows, settings)
            for unit in units
        ]
    finally:
        network.close()


def demand(
    float_unet: nn.Module,
    units: Sequence[Unit],
    inputs: Rows,
    settings: Reconstruction,
    rows: int | None = None,
) -> Demand:
    """What a reconstruction will keep; for a plan or before work starts.

    Args:
        float_unet, units, inputs, settings: see `unit_bytes`.
        rows: calibration and held-out rows, two per sample for a guided model; those of `inputs` by default.
    """
    found = unit_bytes(float_unet, units, inputs[:1], settings)
    networks = METHODS[settings.method].networks
    return Demand(found, len(inputs) if rows is None else rows, networks)


def _of_unit(
    module: nn.Module,
    unit: Unit,
    waiting: PausedForward,
    tracker: PeakTracker,
    rows: int,
    settings: Reconstruction,
) -> UnitBytes:
    arguments, kept = waiting.arguments(), tracker.bytes_alive()
    main = arguments.tensors[arguments.main]
    others = sum(tensor.nbytes for key, tensor in arguments.tensors.items() if key != arguments.main)
    learning = _kept_for_backward(module, arguments)
    inner = inner_layers(unit, settings)
    tracker.most = 0
    with listening(module, inner) as outputs, tracker:
        targets = {
            TARGET: waiting.run_unit().nbytes // rows,
            **{LAYER + name: outputs[name].nbytes // rows for name in inner},
        }
        outputs.clear()
        del arguments
        waiting.next_unit()
    weights = sum(parameter.numel() for parameter in module.parameters() if parameter.dim() > 1)
    sizes = (
        main.nbytes // rows,
        others // rows,
        targets,
        kept // rows,
        tracker.most // rows,
        learning // rows,
    )
    return UnitBytes(unit, *sizes, ROUNDING_BYTES * weights)


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
