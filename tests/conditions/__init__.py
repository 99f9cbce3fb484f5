"""Tests of `edadm.conditions`."""
