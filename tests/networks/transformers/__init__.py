"""Tests of `edadm.networks.transformers`."""
