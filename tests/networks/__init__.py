"""Tests of `edadm.networks`."""
