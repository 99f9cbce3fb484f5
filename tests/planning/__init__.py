"""Tests of `edadm.planning`."""
