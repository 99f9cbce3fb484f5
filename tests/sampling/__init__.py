"""Tests of `edadm.sampling`."""
