"""Tests of `edadm.models`."""
