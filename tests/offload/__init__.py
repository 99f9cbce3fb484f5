"""Tests of `edadm.offload`."""
