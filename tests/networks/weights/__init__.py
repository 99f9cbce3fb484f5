"""Tests of `edadm.networks.weights`."""
