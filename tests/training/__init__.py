"""Tests of `edadm.training`."""
