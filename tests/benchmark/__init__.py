"""Tests of `edadm.benchmark`."""
