"""Low-rank branches beside the layers of a quantized network: LoRAs that are switched, not merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.errors import EdadmError


class Branch(nn.Module):
    """The low-rank branch of one adapter beside one layer, in floating point.

    Its factors are no part of the network's state, and are not counted among its parameters.

    Args:
        layer: in full precision, of whose geometry it is; its values are not looked at.
        numbers: `down` (rank, in, ...), `up` (out, rank, ...), and `mid` (rank, rank, k, k) or none.
        scale: by which the product is multiplied.

    Raises:
        EdadmError: the factors are of another layer.
    """

    down: Tensor
    up: Tensor
    mid: Tensor | None

    def __init__(self, layer: nn.Conv2d | nn.Linear, numbers: Mapping[str, Tensor], scale: float):
        super().__init__()
        self.scale, self.is_linear = scale, isinstance(layer, nn.Linear)
        down, up, mid = numbers["down"].float(), numbers["up"].float(), numbers.get("mid")
        self.window: tuple[Any, ...] = ()
        if isinstance(layer, nn.Conv2d):
            self.window = layer.stride, layer.padding, layer.dilation, layer.groups
        window = layer.weight.shape[2:]
        if self.is_linear:
            down, up = down.flatten(1), up.flatten(1)
        else:
            first = (1, 1) if mid is not None else window
            down, up = down.reshape(len(down), -1, *first), up.reshape(len(up), -1, 1, 1)
        of_mid = mid is None or (not self.is_linear and mid.shape == (len(down), len(down), *window))
        sizes = up.shape[0], up.shape[1], down.shape[1]
        if sizes != (layer.weight.shape[0], len(down), layer.weight.shape[1]) or not of_mid:
            raise EdadmError(
                f"low-rank factors of {tuple(numbers['down'].shape)} and {tuple(numbers['up'].shape)} do not "
                f"fit a layer of {tuple(layer.weight.shape)}; load a LoRA of the same base model"
            )
        for name, tensor in (("down", down), ("up", up), ("mid", mid)):
            found = None if tensor is None else tensor.detach().float().clone()
            self.register_buffer(name, found, persistent=False)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        down, up = self.down.to(x), self.up.to(x)
        if self.is_linear:
            return F.linear(F.linear(x, down), up) * self.scale
        if self.mid is not None:
            hidden = F.conv2d(F.conv2d(x, down), self.mid.to(x), None, *self.window)
        else:
            hidden = F.conv2d(x, down, None, *self.window)
        return F.conv2d(hidden, up) * self.scale


class LowRank(nn.Module):
    """The branches of all adapters beside one layer, which act on the layer's own input before its grid.

    It answers what diffusers asks of such a module of peft.

    Attributes:
        strengths: of the adapters that are active, by name.
        factor: by which all are multiplied during a call.
        is_on: whether any acts.
    """

    merged_adapters: tuple[str, ...] = ()  # none ever is

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        self.names: list[str] = []
        self.strengths: dict[str, float] = {}
        self.factor, self.is_on = 1.0, True

    @property
    def by_name(self) -> dict[str, Branch]:
        """The branches by the names of their adapters."""
        return dict(zip(self.names, self.branches, strict=True))  # type: ignore[arg-type]

    lora_A = lora_B = by_name  # noqa: N815  # as peft calls what is moved to a device

    @property
    def active_adapters(self) -> list[str]:
        """The names of the adapters that act."""
        return list(self.strengths)

    def add(self, name: str, branch: Branch) -> None:
        """Adds a branch under the name of its adapter, which does not act yet."""
        self.names.append(name)
        self.branches.append(branch)

    def remove(self, name: str) -> None:
        """Removes a branch, if there is one of this name."""
        if name in self.names:
            del self.branches[self.names.index(name)]
            self.names.remove(name)
            self.strengths.pop(name, None)

    def scale_layer(self, factor: float) -> None:
        """Multiplies all until `unscale_layer` or `set_scale` is called."""
        self.factor *= factor

    def unscale_layer(self, factor: float) -> None:
        """Takes back what `scale_layer` did with the same factor."""
        self.factor /= factor

    def set_scale(self, name: str, factor: float) -> None:
        """Takes it back whatever its factor was, also after 0, and multiplies by this one."""
        self.factor = factor

    def unmerge(self) -> None:
        """Changes nothing: no branch is merged."""

    def forward(self, x: Float[Tensor, "..."], output: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """A layer's output plus what the active branches make of its input."""
        if not self.is_on or self.factor == 0:
            return output
        for name, branch in self.by_name.items():
            if strength := self.strengths.get(name, 0.0) * self.factor:
                output = output + branch(x).to(output.dtype) * strength
        return output


def beside(layer: nn.Module) -> LowRank:
    """The branches beside a layer, which are made if there are none."""
    found: LowRank | None = getattr(layer, "low_rank", None)
    if found is None:
        found = layer.low_rank = LowRank()
        layer.register_forward_hook(_add)
    return found


def without_branches(layer: nn.Module) -> None:
    """Leaves a layer as it was before `beside`."""
    if hasattr(layer, "low_rank"):
        del layer.low_rank
        for key in [key for key, hook in layer._forward_hooks.items() if hook is _add]:
            del layer._forward_hooks[key]


def _add(layer: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
    found: Tensor = layer.low_rank(args[0], output)
    return found


def low_ranks(network: nn.Module) -> dict[str, LowRank]:
    """All branches in a network by the name of the layer."""
    return {
        name.removesuffix(".low_rank"): module
        for name, module in network.named_modules()
        if isinstance(module, LowRank)
    }


def layers_like(network: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """The convolutions and linear layers of a network in full precision, by name."""
    return {
        name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }
