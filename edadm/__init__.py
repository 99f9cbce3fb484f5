"""edadm: post-training quantization of diffusion models with EDA-DM (arXiv 2401.04585)."""

__version__ = "0.1.0"
