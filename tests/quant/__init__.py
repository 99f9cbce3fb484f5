"""Tests of `edadm.quant`."""
