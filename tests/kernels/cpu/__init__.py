"""Tests of `edadm.kernels.cpu`."""
