"""Tests of quantized networks as models of diffusers."""
