"""What a backend is, and how a quantized network is handed to one by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module

import torch

from edadm.config.backends import BACKENDS, INTEGER, BackendEntry, resolved
from edadm.errors import EdadmError
from edadm.networks.family import Network
from edadm.nn.insert import quantized_layers
from edadm.quant.format import INTEGERS
from edadm.quant.scheme import SMOOTH, Scheme


class Backend(ABC):
    """A backend computes quantized networks by an arithmetic of its own.

    `edadm.config.backends` registers it.
    """

    @abstractmethod
    def runs(self, scheme: Scheme) -> bool:
        """Whether the backend computes weights and inputs of a scheme, its transforms included.

        A network with a layer of another scheme is refused.
        """

    @abstractmethod
    def lower(self, unet: Network, dtype: torch.dtype) -> Network:
        """The network in the backend's arithmetic, on the device where it is; called like the original.

        Args:
            unet: from `edadm.deploy.checkpoint.load_quantized`; left as it was, unless it is the result.
            dtype: of what stays in floating point.

        Raises:
            EdadmError: the backend has no arithmetic for this type or network.
        """


def computes_static_integers(scheme: Scheme) -> bool:
    """Whether a scheme is of static affine integers, perhaps smoothed: what products of int8 can compute."""
    known = scheme.format in INTEGERS.values() and set(scheme.transforms) <= {SMOOTH}
    return known and not scheme.is_dynamic and not scheme.is_symmetric


class CpuBackend(Backend):
    """A backend of static integers on a CPU, between whose layers there is fp32."""

    def runs(self, scheme: Scheme) -> bool:
        """See `computes_static_integers`."""
        return computes_static_integers(scheme)

    def lower(self, unet: Network, dtype: torch.dtype) -> Network:
        """See `Backend.lower`.

        Raises:
            EdadmError: another type than fp32, or as `lower_in_fp32`.
        """
        if dtype != torch.float32:
            raise EdadmError(
                "between layers of integers there is fp32 on a CPU; load with dtype torch.float32, not "
                f"{dtype}"
            )
        return self.lower_in_fp32(unet)

    @abstractmethod
    def lower_in_fp32(self, unet: Network) -> Network:
        """The network in the backend's arithmetic, as `lower` gives it.

        Raises:
            EdadmError: the backend has no arithmetic for this network.
        """


def implementation(entry: BackendEntry) -> Backend:
    """The code of a registered backend, which is imported now.

    Raises:
        EdadmError: it needs a package that is not installed.
    """
    try:
        found: Backend = import_module(entry.module).BACKEND
    except ModuleNotFoundError as error:
        if not entry.extra:
            raise
        raise EdadmError(
            f"backend '{entry.name}' needs the package '{error.name}'; "
            f"install it with `pip install edadm[{entry.extra}]`"
        ) from None
    return found


def lower(unet: Network, dtype: torch.dtype = torch.float32, backend: str = INTEGER) -> Network:
    """A quantized U-Net in the arithmetic that a backend's name means on the device of the network.

    Args:
        unet: from `edadm.deploy.checkpoint.load_quantized`, on the device where it is to run.
        dtype: of what stays in floating point.
        backend: a name of `edadm.config.backends`.

    Raises:
        EdadmError: no such backend, none for this device, one that does not run the scheme of a layer, or as
            `Backend.lower`.
    """
    kind = next(unet.parameters()).device.type
    entry = resolved(backend, kind)
    arithmetic = implementation(entry)
    for name, layer in quantized_layers(unet).items():
        for role, quantizer in (("weight", layer.weight_quantizer), ("input", layer.input_quantizer)):
            if quantizer is not None and not arithmetic.runs(quantizer.scheme):
                others = ", ".join(f"'{other}'" for other in _running(quantizer.scheme, kind))
                raise EdadmError(
                    f"{name}: backend '{entry.name}' computes no {role} of {quantizer.scheme}; "
                    f"load with one that does: {others}"
                )
    return arithmetic.lower(unet, dtype)


def _running(scheme: Scheme, kind: str) -> Iterator[str]:
    """The names of the backends that run a scheme on a kind of device, as far as they are installed."""
    for entry in BACKENDS.values():
        if not entry.devices or kind in entry.devices:
            with suppress(EdadmError):
                if implementation(entry).runs(scheme):
                    yield entry.name
