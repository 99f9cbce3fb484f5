"""Corrections in the sampler, from what quantization does to predictions of calibration rows."""
