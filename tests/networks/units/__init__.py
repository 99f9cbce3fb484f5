"""Tests of `edadm.networks.units`."""
