"""edadm: post-training quantization of diffusion models with EDA-DM (arXiv 2401.04585)."""

from typing import TYPE_CHECKING, Any

from edadm.registration import register
from edadm.version import __version__

if TYPE_CHECKING:
    from edadm.deploy.load import load

__all__ = ["__version__", "load"]

register()


def __getattr__(name: str) -> Any:
    """Hands out `edadm.load` on demand.

    It needs torch and diffusers, which most of the package's users do not.
    """
    if name == "load":
        from edadm.deploy.load import load

        return load
    raise AttributeError(f"module 'edadm' has no attribute '{name}'")
