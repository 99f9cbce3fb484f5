"""Tests of `edadm.artifacts`."""
