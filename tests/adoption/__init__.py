"""Tests of `edadm.adoption`."""
