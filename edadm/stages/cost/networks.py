"""A model's networks, counted on the device `meta`, where they have shapes and no memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edadm.config.methods import METHODS
from edadm.config.schema import Bits, Model, Reconstruction
from edadm.deploy.grids import quantized_copy
from edadm.learning.capture.demand import unit_bytes
from edadm.networks.autoencoder import LatentDecoder, build_autoencoder
from edadm.networks.build import build_network
from edadm.networks.families import family_of, network_call
from edadm.networks.family import Network
from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.load import build_part
from edadm.networks.units.temporal import units_of
from edadm.networks.units.unit import Exclude, Unit
from edadm.nn.insert import quantized_layers
from edadm.nn.quantizer import Quantizer
from edadm.nn.transformed import TransformedLinear
from edadm.offload.demand import Demand, UnitBytes
from edadm.offload.tracker import PeakTracker
from edadm.stages.cost.work import FP32

SCALE_BITS = 32
ACTIVATION_ZERO_POINT_BITS = 8
WEIGHT_ZERO_POINT_BITS = 1  # which of the middle levels (`edadm.deploy.grid_packing`); in ranges all have 8


@dataclass(frozen=True)
class Quantized:
    """What a bits preset makes of a U-Net.

    Attributes:
        layers: names of convolutions and linear layers with quantized weights.
        weights: their weights.
        grids: quantizers of weights, activations and attention operands.
        grid_bytes: their scales and zero points, factors of smoothing and branches, as `ranges.safetensors`
        holds
            them.
        bytes: tensors of `quantized.safetensors`: packed codes, grids, and what stays fp32; its header comes
            on top.
    """

    layers: frozenset[str]
    weights: int
    grids: int
    grid_bytes: int
    bytes: int


class Networks:
    """Counts of a model preset's networks.

    Args:
        model: the preset.
    """

    def __init__(self, model: Model):
        self.model = model
        self._quantized: dict[str, Quantized] = {}
        self._units: dict[tuple[bool, Exclude], list[Unit]] = {}
        self._unit_bytes: dict[tuple[object, ...], list[UnitBytes]] = {}

    @cached_property
    def unet(self) -> Network:
        """The U-Net without memory."""
        with torch.device("meta"):
            return build_network(self.model.architecture).eval().requires_grad_(False)

    @cached_property
    def parameters(self) -> int:
        """Parameters of the U-Net."""
        return _parameters(self.unet)

    @cached_property
    def decoder_parameters(self) -> int:
        """Parameters of the autoencoder, 0 without one."""
        if self.model.autoencoder is None:
            return 0
        with torch.device("meta"):
            return _parameters(build_autoencoder(self.model.autoencoder))

    @cached_property
    def condition_parameters(self) -> int:
        """Parameters of the class embedding or text encoder, 0 without one."""
        if self.model.conditioning is None or self.model.architecture.context_channels is None:
            return 0
        with torch.device("meta"):
            return _parameters(build_part(self.model, "condition"))

    @property
    def inputs(self) -> Rows:
        """One row of what the U-Net is given."""
        return InputSpec.of(self.model).random(1, "meta")

    @cached_property
    def flops(self) -> dict[str, int]:
        """Floating-point operations of one row, of the whole network ('') and of each module by name."""
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network_call(self.unet, self.inputs)
        root = type(self.unet).__name__
        counts = {name: sum(operations.values()) for name, operations in counter.get_flop_counts().items()}
        return {"": counter.get_total_flops()} | {
            n.removeprefix(f"{root}."): c for n, c in counts.items() if n.startswith(f"{root}.")
        }

    @cached_property
    def feature_elements(self) -> int:
        """Elements of one row of a step's feature: the input of the middle attention (method, 2.2)."""
        found: list[int] = []
        handle = (
            family_of(self.unet)
            .feature_module(self.unet)
            .register_forward_pre_hook(
                lambda _, inputs, named: found.append((*inputs, *named.values())[0].numel()), with_kwargs=True
            )
        )
        try:
            with torch.no_grad():
                network_call(self.unet, self.inputs)
        finally:
            handle.remove()
        return found[-1]

    @cached_property
    def decode_bytes(self) -> int:
        """Most that decoding a full batch of latents holds at once; 0 without an autoencoder."""
        if self.model.autoencoder is None:
            return 0
        with torch.device("meta"):
            decoder = LatentDecoder(build_autoencoder(self.model.autoencoder).eval(), 1.0)
            latents = torch.zeros(decoder.at_once(self.model.latent_shape), *self.model.latent_shape)
        with PeakTracker() as tracker:
            decoder(latents)
        return tracker.most

    def quantized(self, bits: Bits) -> Quantized:
        """What the bits preset makes of the U-Net.

        Raises:
            EdadmError: a pattern of `bits.layers` matches no layer.
        """
        key = bits.model_dump_json()
        if key not in self._quantized:
            self._quantized[key] = self._count_quantized(bits)
        return self._quantized[key]

    def _count_quantized(self, bits: Bits) -> Quantized:
        with torch.device("meta"):
            unet = quantized_copy(self.unet, bits)
        layers = quantized_layers(unet)
        weights = {f"{name}.weight" for name in layers}
        kept = sum(parameter.numel() for name, parameter in unet.named_parameters() if name not in weights)
        codes = sum(
            -(-layer.weight.numel() // 2) if layer.weight_quantizer.bits <= 4 else layer.weight.numel()
            for layer in layers.values()
        )
        grids = [module for module in unet.modules() if isinstance(module, Quantizer)]
        of_weights = sum(grid.scale.numel() for grid in grids if grid.rows is not None)
        of_activations = sum(grid.scale.numel() for grid in grids if grid.rows is None)
        scales = (of_weights + of_activations) * SCALE_BITS // 8
        zero_points = (
            -(-of_weights * WEIGHT_ZERO_POINT_BITS // 8) + of_activations * ACTIVATION_ZERO_POINT_BITS // 8
        )
        total = sum(layer.weight.numel() for layer in layers.values())
        smoothed = sum(layer.smooth.numel() for layer in layers.values() if layer.smooth is not None)
        smoothed += _branch_bytes(layers, bits)
        written = (of_weights + of_activations) * (SCALE_BITS + ACTIVATION_ZERO_POINT_BITS) // 8 + smoothed
        held = codes + kept * FP32 + scales + zero_points + smoothed
        return Quantized(frozenset(layers), total, len(grids), written, held)

    def units(self, settings: Reconstruction) -> list[Unit]:
        """The units of the settings' method in order of execution."""
        key = (settings.method, settings.exclude)
        if key not in self._units:
            self._units[key] = units_of(self.unet, settings)
        return self._units[key]

    def learned_units(self, settings: Reconstruction, bits: Bits) -> list[Unit]:
        """Those of them that hold quantized weights and see images; none if nothing is learned.

        A unit that sees timesteps alone learns in no time.
        """
        if not METHODS[settings.method].learns:
            return []
        layers = self.quantized(bits).layers
        return [unit for unit in self.units(settings) if layers & set(unit.layers) and not unit.is_apart]

    def demand(self, settings: Reconstruction, rows: int) -> Demand:
        """Bytes that reconstruction over so many rows needs."""
        key = (settings.method, settings.exclude, settings.layer_weight > 0, settings.without_layer_errors)
        if key not in self._unit_bytes:
            self._unit_bytes[key] = unit_bytes(self.unet, self.units(settings), self.inputs, settings)
        return Demand(self._unit_bytes[key], rows)

    @cached_property
    def forward_bytes(self) -> int:
        """Most that one row holds at once in an evaluation of the U-Net."""
        with PeakTracker() as tracker, torch.no_grad():
            network_call(self.unet, self.inputs)
        return tracker.most


def _branch_bytes(layers: Mapping[str, nn.Module], bits: Bits) -> int:
    """The bytes of low-rank branches, whose numbers have 16 bits."""
    rank = 0 if bits.linear is None or bits.linear.rank is None else bits.linear.rank
    found = [layer for layer in layers.values() if isinstance(layer, TransformedLinear) and layer.has_branch]
    return sum(2 * min(rank, *layer.weight.shape) * sum(layer.weight.shape) for layer in found)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
