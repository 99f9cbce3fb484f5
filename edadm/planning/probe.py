"""A short probe of the machine: a few timed evaluations, learning steps and searches.

Of a network with random weights.

A GPU is measured at the batch sizes of the plan. A CPU gets at most so many rows as `CPU_FLOPS` allow, and
two of the costliest: beyond that its time is held to be proportional to rows.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from edadm.benchmark.clock import Clock
from edadm.config.schema import Bits, Reconstruction
from edadm.deploy.grids import quantized_copy
from edadm.learning.capture.data import UnitData, inner_layers, listening
from edadm.learning.capture.pausing import PausingNetwork
from edadm.learning.engine import learn_unit
from edadm.learning.steps.precision import arithmetic
from edadm.learning.task import settings_of
from edadm.networks.autoencoder import LatentDecoder
from edadm.networks.families import network_call
from edadm.networks.family import Network
from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.random_weights import random_autoencoder, random_network
from edadm.networks.units.unit import Unit
from edadm.nn.insert import quantized_layers
from edadm.passes.ranges import cover_weights, observing, set_weight_grid
from edadm.planning.rates import Rates, UnitRate
from edadm.quant.streams import Stream
from edadm.stages.cost.networks import Networks
from edadm.stages.cost.work import CHAIN, Cost, Learning, Passes

CPU_FLOPS = 2 * 10**10  # of a call that is timed
FEWEST_ROWS = 2
BACKWARD = 3  # a learning step costs about so many forward passes
REPEATS = 2
LONG = 3.0  # seconds after which one call is enough
STEPS = {"cpu": 2, "cuda": 20}
SCORED = 64
WRITTEN = 2**26
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Probe:
    """Times a model's networks on one device.

    Args:
        networks: counts of the model.
        device: where.
    """

    def __init__(self, networks: Networks, device: torch.device):
        self.networks, self.model, self.device = networks, networks.model, device
        name = (
            torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"cpu, {torch.get_num_threads()} threads"
        )
        self.rates = Rates(name)
        self._unet: Network | None = None
        self._quantized: dict[frozenset[str], nn.Module] = {}

    @property
    def unet(self) -> Network:
        """The float network with random weights."""
        if self._unet is None:
            self._unet = random_network(self.model, self.device)
        return self._unet

    def quantized(self, bits: Bits) -> nn.Module:
        """The quantized copy; one for all presets with the same quantized layers.

        Bits do not change what simulation costs.
        """
        layers = self.networks.quantized(bits).layers
        if layers not in self._quantized:
            self._quantized[layers] = quantized_copy(self.unet, bits)
        return self._quantized[layers]

    def measure(self, stages: Iterable[Cost]) -> Rates:
        """All that the stages need, but what scoring and writing take."""
        for stage in stages:
            for passes in (*stage.passes, *stage.unit_rows):
                self.time_passes(passes, stage.bits)
            if stage.searched_weights and stage.bits is not None and not self.rates.weight:
                self.time_weights(stage.bits)
            if stage.decoded and not self.rates.decoded:
                self.time_decoder()
            self.time_learning(stage)
        return self.rates

    def affordable(self, rows: int, flops: int) -> int:
        """With how many rows a batch is measured, if a row costs so many operations."""
        return rows if self.device.type == "cuda" else min(rows, max(FEWEST_ROWS, CPU_FLOPS // max(flops, 1)))

    def inputs(self, rows: int) -> Rows:
        """Random inputs of the network."""
        return InputSpec.of(self.model).random(rows, self.device)

    def time_passes(self, passes: Passes, bits: Bits | None) -> None:
        """Seconds per row of network evaluations as in `passes`."""
        if passes.key in self.rates.rows:
            return
        network = self.unet if passes.kind == "float" else self.quantized(bits or Bits())
        rows = self.affordable(passes.batch, self.networks.flops[""])
        inputs = self.inputs(rows)

        @torch.no_grad()
        def call() -> None:
            with _arithmetic_of(passes.precision, self.device):
                network_call(network, inputs)

        with _searching(network, bits if passes.kind == "observed" else None):
            self.rates.rows[passes.key] = self._seconds(call) / rows

    def time_weights(self, bits: Bits) -> None:
        """Seconds per weight of the range search, of one layer of middle size."""
        layers = sorted(
            quantized_layers(self.quantized(bits)).values(), key=lambda layer: layer.weight.numel()
        )
        layer = layers[len(layers) // 2]
        with torch.no_grad():
            search = self._seconds(lambda: set_weight_grid(layer, bits.weight_zero_point == "either"))
        self.rates.weight = search / layer.weight.numel()

    def time_decoder(self) -> None:
        """Seconds per decoded image, if the model makes latents."""
        if self.model.autoencoder is None:
            return
        decoder = LatentDecoder(random_autoencoder(self.model, self.device), 1.0)
        rows = decoder.at_once(self.model.latent_shape) if self.device.type == "cuda" else 1
        latents = torch.randn(rows, *self.model.latent_shape, device=self.device)
        self.rates.decoded = self._seconds(lambda: decoder(latents)) / rows

    def time_learning(self, stage: Cost) -> None:
        """Learning steps of the cheapest and the costliest unit of each kind that is new to a stage."""
        bits, settings = stage.bits, stage.settings
        if not stage.learning:
            return
        rates = self.rates.units.setdefault(stage.learning_key, [])
        measured = {rate.unit.kind for rate in rates}
        wanted = {
            found.unit.name: found
            for found in extremes([found for found in stage.learning if found.unit.kind not in measured])
        }
        if not wanted:
            return
        assert bits is not None and settings is not None
        for unit, data in self._unit_data(wanted, settings):
            module = self.quantized(bits).get_submodule(unit.name)
            with torch.no_grad(), observing(module, bits):
                data.quantized.call(module)
            for layer in quantized_layers(module).values():
                cover_weights(layer)
            rates.append(self._learn(module, data, wanted[unit.name], settings))

    def _unit_data(
        self, wanted: dict[str, Learning], settings: Reconstruction
    ) -> Iterator[tuple[Unit, UnitData]]:
        """Inputs and targets of units in order of execution, of a few rows of the float network repeated."""
        network = PausingNetwork(self.unet, list(wanted))
        try:
            waiting = network.start(self.inputs(FEWEST_ROWS))
            for name, found in wanted.items():
                arguments = waiting.arguments()
                with listening(self.unet.get_submodule(name), inner_layers(found.unit, settings)) as outputs:
                    target = waiting.run_unit()
                    layers = dict(outputs)
                rows = self.affordable(found.rows, BACKWARD * found.flops)
                again = torch.arange(rows, device=self.device) % FEWEST_ROWS
                quantized, exact = arguments.rows(again), arguments.rows(again)
                targets = {name: tensor[again] for name, tensor in layers.items()}
                yield (
                    found.unit,
                    UnitData(quantized, exact, target[again], targets, 0, found.unit.channel_axis == -1),
                )
                waiting.next_unit()
        finally:
            network.close()

    def _learn(
        self, module: nn.Module, data: UnitData, found: Learning, settings: Reconstruction
    ) -> UnitRate:
        steps = STEPS[self.device.type]
        clock = Clock(self.device)
        own = settings_of(found.unit, settings).model_copy(update={"iterations": steps})
        if self.device.type == "cuda":  # kernels are compiled once per machine, not once per unit
            self._learn_once(module, data, own.model_copy(update={"iterations": 1}), Clock(self.device))
        begin = clock.now()
        self._learn_once(module, data, own, clock)
        overhead = clock.now() - begin - clock.seconds
        used = min(own.batch_size, len(data.target))
        return UnitRate(found.unit, found.flops, clock.seconds / steps / used * found.rows, overhead)

    def _learn_once(self, module: nn.Module, data: UnitData, settings: Reconstruction, clock: Clock) -> None:
        stream = Stream.of(0, "probe", step=torch.zeros((), dtype=torch.int32, device=self.device))
        with arithmetic(settings.precision):
            learn_unit(module, data, settings, stream, clock)

    def _seconds(self, call: Callable[[], object]) -> float:
        """The fastest of some calls after one that warms up; of a long call on a CPU, that one."""
        clock, times = Clock(self.device), []
        for _ in range(1 + REPEATS):
            begin = clock.now()
            call()
            times.append(clock.now() - begin)
            if self.device.type == "cpu" and times[-1] > LONG:
                break
        return min(times[1:] or times)

    def time_scoring(self, extract: Callable[[Tensor], object], channels: int, side: int) -> None:
        """Seconds per image that is scored.

        Args:
            extract: from uint8 images (n, channels, side, side) to features, on its own device.
            channels, side: of the images.
        """
        rows = FEWEST_ROWS if self.device.type == "cpu" else SCORED
        images = torch.zeros(rows, channels, side, side, dtype=torch.uint8)
        self.rates.scored = self._seconds(lambda: extract(images)) / rows

    def time_disk(self, folder: Path) -> None:
        """Bytes per second that reach the disk of a folder, or of its nearest parent that exists."""
        while not folder.is_dir():
            folder = folder.parent
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            block = os.urandom(2**20)
            begin = time.perf_counter()
            for _ in range(WRITTEN // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            self.rates.written = WRITTEN / (time.perf_counter() - begin)


def extremes(learning: Sequence[Learning]) -> list[Learning]:
    """The units with the fewest and with the most operations of each kind, in the order given."""
    chosen = set()
    for kind in {found.unit.kind for found in learning}:
        of_kind = [found for found in learning if found.unit.kind == kind]
        chosen |= {
            min(of_kind, key=lambda found: found.flops).unit.name,
            max(of_kind, key=lambda found: found.flops).unit.name,
        }
    return [found for found in learning if found.unit.name in chosen]


@contextmanager
def _searching(network: nn.Module, bits: Bits | None) -> Iterator[None]:
    """Inside the context activation ranges are searched, if bits are given."""
    if bits is None:
        yield
        return
    with observing(network, bits):
        yield


@contextmanager
def _arithmetic_of(precision: str, device: torch.device) -> Iterator[None]:
    """A reconstruction's arithmetic or, while sampling, PyTorch's own with autocast for half precision."""
    if precision.startswith(CHAIN):
        with arithmetic(precision.removeprefix(CHAIN)):  # type: ignore[arg-type]
            yield
        return
    with torch.autocast(device.type, _HALF.get(precision, torch.bfloat16), enabled=precision in _HALF):
        yield
