"""Tests of `edadm.kernels.int8`."""
