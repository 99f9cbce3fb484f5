"""Quantized checkpoints in formats of other programs."""
