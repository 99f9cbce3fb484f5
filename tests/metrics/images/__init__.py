"""Tests of `edadm.metrics`."""
