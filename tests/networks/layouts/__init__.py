"""Tests of `edadm.networks.layouts`."""
