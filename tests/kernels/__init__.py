"""Tests of `edadm.kernels`."""
