"""Tensors in, tensors out: the arithmetic of quantization."""
