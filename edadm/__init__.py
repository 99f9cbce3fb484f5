"""edadm: post-training quantization of diffusion models with EDA-DM (arXiv 2401.04585)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edadm.deploy.load import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`edadm.load`, imported when it is asked for: it needs torch and diffusers, and most of the package's users do not."""
    if name == "load":
        from edadm.deploy.load import load

        return load
    raise AttributeError(f"module 'edadm' has no attribute '{name}'")
