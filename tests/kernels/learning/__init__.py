"""Tests of `edadm.kernels.learning`."""
