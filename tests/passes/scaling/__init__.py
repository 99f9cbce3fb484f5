"""Tests of `edadm.passes`."""
