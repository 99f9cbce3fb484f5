"""Device memory of each stage: weights exactly, activations as one pass over `meta` holds them, work beside them as an allowance."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edadm.config.schema import Reconstruction
from edadm.planning.network import FP32, Networks, Quantized
from edadm.sampling.trajectory import PIECE

if TYPE_CHECKING:
    from edadm.planning.count import Passes

COPY_BYTES = 24  # of an element of a piece of features in fp64: itself, normalised, and joined
SEARCH_BYTES = (
    8 * 2**22 * FP32
)  # thresholds are tried in pieces of 2^22 elements, with a few temporaries each
CODE_BYTES = 1


@dataclass(frozen=True)
class Memory:
    """Bytes on the device.

    Attributes:
        weights: of all networks that are there.
        work: activations and temporaries of a batch or a learning step.
        kept: what reconstruction keeps between units: tables of the unit and paused passes, at the fullest
            unit.
    """

    weights: int = 0
    work: int = 0
    kept: int = 0

    @property
    def needed(self) -> int:
        """What must be on the device; what is kept can go elsewhere."""
        return self.weights + self.work

    @property
    def total(self) -> int:
        """All of it."""
        return self.needed + self.kept


def collect_bytes(networks: Networks, batch: int, feature_rows: int) -> Memory:
    """Of `collect-trajectories`; `feature_rows` are those of all network calls of a batch."""
    weights = (networks.parameters + networks.condition_parameters) * FP32
    features = feature_rows * networks.feature_elements
    return Memory(
        weights, features * FP32 + max(batch * networks.forward_bytes, min(features, PIECE) * COPY_BYTES)
    )


def ranges_bytes(networks: Networks, quantized: Quantized, batch: int) -> Memory:
    """Of `set-ranges`."""
    return Memory(
        networks.parameters * FP32 + quantized.weights * CODE_BYTES,
        batch * networks.forward_bytes + SEARCH_BYTES,
    )


def reconstruct_bytes(
    networks: Networks, quantized: Quantized, settings: Reconstruction, rows: int, learned: Collection[str]
) -> Memory:
    """Of `reconstruct`, where all is kept on the device; at the fullest of the units that are learned."""
    weights = networks.parameters * FP32 + quantized.weights * (FP32 + CODE_BYTES)
    need = networks.demand(settings, rows)
    kept = max(need.of_unit(unit) for unit in need.units if unit.name in learned)
    return Memory(weights, need.of_work(settings.batch_size, settings.chain_batch_size), kept)


def generate_bytes(networks: Networks, passes: Passes, quantized: Quantized | None) -> Memory:
    """Of `generate`; in half precision, autocast keeps a second, smaller copy of the weights."""
    half = passes.precision != "fp32"
    unet = networks.parameters * (FP32 + (2 if half else 0)) + (
        quantized.weights * CODE_BYTES if quantized else 0
    )
    weights = unet + (networks.decoder_parameters + networks.condition_parameters) * FP32
    return Memory(
        weights, max(passes.batch * networks.forward_bytes // (2 if half else 1), networks.decode_bytes)
    )
