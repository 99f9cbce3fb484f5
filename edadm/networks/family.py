"""What a network is: how it is built and called, and what it is made of, in one description per family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float, Int
from torch import Tensor, nn

from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.units.unit import Kind

Network: TypeAlias = ModelMixin  # whatever a family builds: a model of diffusers


@dataclass(frozen=True)
class UnitKind:
    """A block that is learned at once.

    Args:
        name: under which reports and settings know it.
        module: its class.
        registered: its layers by name within it, in the order in which the original network registers them.
        executed: the same with the layer last whose output is the block's, before residuals.
        channel_axis: of its inner layers' outputs in the original network, 1 or -1 of the tensors here.
    """

    name: Kind
    module: type[nn.Module]
    registered: tuple[str, ...]
    executed: tuple[str, ...]
    channel_axis: int = 1


@dataclass(frozen=True)
class Coupling:
    """A norm, and the layers that are fed by nothing else.

    Args:
        norm: its name.
        layers: names of convolutions and linear layers.
        is_linear: whether nothing but the norm stands between, so that factors of the layers' input channels
            can move into its gain; otherwise an activation or a modulation does.
    """

    norm: str
    layers: tuple[str, ...]
    is_linear: bool = True


class TemporalPart(nn.Module, ABC):
    """What a network computes from the timestep alone, as one module that shares the network's own layers.

    It is called with `features`; its output (n, channels) is all that the rest of the network sees of it.

    Attributes:
        layers: names, in the network, of its convolutions and linear layers, in order of execution.
    """

    layers: tuple[str, ...]

    @abstractmethod
    def features(self, timesteps: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """What its first layer is given at each timestep."""


class Family(ABC):
    """Networks of one kind.

    Attributes:
        name: in configurations and checkpoints.
        classes: of diffusers, of which its networks are.
        layouts: of original checkpoints that are read, by the preset's `layout`; all read diffusers', too.
        predictions: what its networks may predict.
        kinds: blocks that are learned at once; layers outside them are learned alone.
    """

    name: ClassVar[str]
    classes: ClassVar[tuple[type[nn.Module], ...]]
    layouts: ClassVar[tuple[str, ...]] = ()
    predictions: ClassVar[tuple[str, ...]] = ("eps", "v", "sample")
    kinds: ClassVar[Sequence[UnitKind]]

    @abstractmethod
    def build(self, architecture: Architecture) -> Network:
        """A randomly initialised network.

        Raises:
            EdadmError: its library knows no such network.
        """

    def takes(self, network: nn.Module) -> bool:
        """Whether a network that no family built is of this one."""
        return isinstance(network, self.classes)

    @abstractmethod
    def inputs(self, network: nn.Module) -> InputSpec:
        """What a network takes; of a sequence of tokens, one token."""

    @abstractmethod
    def call(self, network: nn.Module, rows: Rows) -> Float[Tensor, " n *s"]:
        """The network's prediction."""

    @abstractmethod
    def feature_module(self, network: nn.Module) -> nn.Module:
        """The module whose input is the feature of a sampler step (TDAC; method, 2.2)."""

    @abstractmethod
    def concatenations(self, network: nn.Module) -> Mapping[str, tuple[int, ...]]:
        """Sizes of the parts of concatenated input channels, by the name of the layer that splits them."""

    @abstractmethod
    def couplings(self, network: nn.Module) -> Sequence[Coupling]:
        """Which layers each norm feeds."""

    def floats(self, network: nn.Module) -> Collection[str]:
        """Names of layers that are never quantized and are no unit of their own."""
        return ()

    def temporal(self, network: nn.Module) -> TemporalPart | None:
        """What a network computes from the timestep alone; None where that does not stand apart."""
        return None
