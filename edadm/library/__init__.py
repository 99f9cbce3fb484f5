"""Quantization of a diffusers U-Net in memory, without a workflow; `edadm.calibrate`, `edadm.quantize`."""
