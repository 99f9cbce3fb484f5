"""States of quantized networks: what they hold, how much it is, and states that are loaded into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edadm.config.backends import DEFAULT
from edadm.deploy.checkpoint import Facts
from edadm.deploy.checkpoint.network import unquantized_parameters
from edadm.deploy.grid_packing import WEIGHT_SCALES, expand
from edadm.deploy.grids import quantizers
from edadm.errors import EdadmError
from edadm.kernels.packing import unpack4
from edadm.networks.build import build_network
from edadm.networks.settings.architecture import Architecture
from edadm.nn.insert import quantized_layers
from edadm.nn.sound import state_flaws
from edadm.nn.transformed import TransformedLinear

ELSEWHERE = (
    "load a quantized file with `edadm.load`, or quantize weights in full precision with `edadm reconstruct`"
)
State = Mapping[str, Tensor]


def is_rounded(network: nn.Module) -> bool:
    """Whether parameters are in a type that does not hold all of what a checkpoint says of them."""
    return any(parameter.dtype.itemsize < 4 for parameter in network.parameters())


class States:
    """A mixin of networks that know what of them is quantized, whoever counts, casts or fills them.

    Attributes:
        facts: what the checkpoint said of itself.
        backend: the name of the backend that it was loaded with.
        was_cast: whether what is not quantized was ever in half precision; casting back does not bring its
            bits back.
    """

    facts: Facts
    backend: str = DEFAULT
    was_cast: bool = False

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Remembers a cast."""
        found = super()._apply(fn, recurse)  # type: ignore[misc]
        self.was_cast = self.was_cast or is_rounded(self)  # type: ignore[arg-type]
        return found

    def train(self, mode: bool = True) -> Any:
        """Refuses to be trained, of which PyTorch would say no more than that an output has no gradient.

        Raises:
            EdadmError: always, unless the mode is that of inference.
        """
        if mode:
            raise EdadmError(
                "a quantized network is frozen and stays in inference mode; train the network in full "
                "precision and quantize it again, or keep this one out of modules that are trained"
            )
        return super().train(mode)  # type: ignore[misc]

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Fills the network from its own kind of state, or from the tensors of a file of such a network.

        Codes and grids are checked before anything changes, and weights follow them.

        Args:
            state_dict: of such a network, or what safetensors reads from a quantized checkpoint.
            strict: nothing may be missing, and nothing left over; otherwise layers may be missing as a whole.
            assign: as in `torch.nn.Module`.

        Raises:
            EdadmError: the backend keeps its weights in another form; the state is of another network, or in
                full precision, or holds what no file may hold.
        """
        if self.backend != DEFAULT:
            raise EdadmError(
                f"a network with backend '{self.backend}' keeps its weights in a form of its own and takes "
                f"no state; load the file with `edadm.load(FILE, backend='{self.backend}')`"
            )
        network: Any = self
        own = network.state_dict()
        state = _of_file(network, state_dict) if WEIGHT_SCALES in state_dict else state_dict
        for flaw in (*_misfits(network, own, state, strict), *state_flaws(network, state)):
            raise EdadmError(f"{flaw}; {ELSEWHERE}")
        if any(not torch.equal(own[name], state[name].to(own[name])) for name in own.keys() & state.keys()):
            self.facts = self.facts | {"provenance": {}}  # which was that of other numbers
        found = super().load_state_dict(state, strict, assign)  # type: ignore[misc]
        for layer in quantized_layers(network).values():
            layer.refold()
        return found

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """The number of parameters that the network had before it was quantized.

        Args:
            only_trainable: those that can be learned, which are none unless somebody said so.
            exclude_embeddings: as in diffusers.
        """
        counted: Any = super()
        if self.backend != DEFAULT and not only_trainable:
            with torch.device("meta"):
                counted = build_network(Architecture.model_validate(self.facts["architecture"]))
        found: int = counted.num_parameters(only_trainable, exclude_embeddings)
        return found

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """The bytes of all parameters, and of codes in whatever form the backend keeps them.

        Args:
            return_buffers: counts buffers, too, as codes are.
        """
        found: int = super().get_memory_footprint(return_buffers)  # type: ignore[misc]
        modules = self.modules()  # type: ignore[attr-defined]
        return found + return_buffers * sum(getattr(module, "packed_bytes", 0) for module in modules)


def _of_file(network: nn.Module, tensors: State) -> dict[str, Tensor]:
    """The state that the tensors of a quantized checkpoint say.

    Raises:
        EdadmError: they are not those of such a network.
    """
    layers = quantized_layers(network)
    try:
        state = {name: tensor.float() for name, tensor in expand(tensors, quantizers(network)).items()}
        for name, layer in layers.items():
            codes, shape = tensors[f"{name}.codes"], tuple(layer.weight.shape)
            state[f"{name}.codes"] = unpack4(codes, shape) if layer.weight_quantizer.bits <= 4 else codes
            state[f"{name}.weight"] = layer.weight
            if layer.smooth is not None:
                state[f"{name}.smooth"] = torch.exp2(tensors[f"{name}.smooth"].float())
            if isinstance(layer, TransformedLinear) and layer.has_branch:
                state |= {f"{name}.{factor}": tensors[f"{name}.{factor}"] for factor in ("down", "up")}
        return state | {name: tensors[name] for name in unquantized_parameters(network, layers)}
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise EdadmError(f"the file is not one of this network ({reason}); {ELSEWHERE}") from None


def _misfits(network: nn.Module, own: State, state: State, strict: bool) -> Iterator[str]:
    """Says what keeps a state from being one of this network."""
    given = state.keys() & own.keys()
    layers = quantized_layers(network)
    full = [n for n in layers if f"{n}.weight" in given and f"{n}.codes" not in given]
    if full:
        yield f"the state has a weight of {full[0]} without codes, as networks in full precision have"
    for name in layers:
        of_layer = {key for key in own if key.startswith(f"{name}.")}
        if of_layer & given and of_layer - given:
            yield f"the state has some of {name}, but no {min(of_layer - given)}"
    if strict and (missing := own.keys() - given):
        yield f"the state has no {min(missing)}, and is not one of this network"
    if strict and (other := state.keys() - given):
        yield f"the state has {min(other)}, and is not one of this network"
    for name in sorted(given):
        if state[name].shape != own[name].shape:
            sizes = f"{tuple(state[name].shape)}, not {tuple(own[name].shape)}"
            yield f"the state has {name} of {sizes}, and is not one of this network"
