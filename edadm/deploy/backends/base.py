"""What a backend is, and how a quantized network is handed to one by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module

import torch

from edadm.config.backends import INTEGER, BackendEntry, resolved
from edadm.errors import EdadmError
from edadm.networks.unet.base import UNet
from edadm.nn.layers import QuantizedLayer


class Backend(ABC):
    """A backend computes quantized networks by an arithmetic of its own.

    `edadm.config.backends` registers it.
    """

    @abstractmethod
    def runs(self, layer: QuantizedLayer) -> bool:
        """Whether the backend's arithmetic knows the scheme of a layer; others stay in floating point."""

    @abstractmethod
    def lower(self, unet: UNet, dtype: torch.dtype) -> UNet:
        """The network in the backend's arithmetic, on the device where it is; called like the original.

        Args:
            unet: from `edadm.deploy.checkpoint.load_quantized`; left as it was, unless it is the result.
            dtype: of what stays in floating point.

        Raises:
            EdadmError: the backend has no arithmetic for this type or network.
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


def lower(unet: UNet, dtype: torch.dtype = torch.float32, backend: str = INTEGER) -> UNet:
    """A quantized U-Net in the arithmetic that a backend's name means on the device of the network.

    Args:
        unet: from `edadm.deploy.checkpoint.load_quantized`, on the device where it is to run.
        dtype: of what stays in floating point.
        backend: a name of `edadm.config.backends`.

    Raises:
        EdadmError: no such backend, none for this device, or as `Backend.lower`.
    """
    return implementation(resolved(backend, next(unet.parameters()).device.type)).lower(unet, dtype)
