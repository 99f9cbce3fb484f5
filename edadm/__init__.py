"""edadm: post-training quantization of diffusion models with EDA-DM (arXiv 2401.04585)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edadm.registration import register
from edadm.version import __version__

if TYPE_CHECKING:
    from edadm.deploy.export.formats import export
    from edadm.deploy.load import load
    from edadm.library.calibrate import calibrate
    from edadm.library.example import example_unet
    from edadm.library.quantize import quantize

__all__ = ["__version__", "calibrate", "example_unet", "export", "load", "quantize"]

_MODULES = {
    "calibrate": "edadm.library.calibrate",
    "example_unet": "edadm.library.example",
    "export": "edadm.deploy.export.formats",
    "load": "edadm.deploy.load",
    "quantize": "edadm.library.quantize",
}

register()


def __getattr__(name: str) -> Any:
    """Hands out public functions on demand.

    They need torch and diffusers, which most of the package's users do not.
    """
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'edadm' has no attribute '{name}'")
