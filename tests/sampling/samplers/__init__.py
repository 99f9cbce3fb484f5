"""Tests of `edadm.sampling.samplers`."""
