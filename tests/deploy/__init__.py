"""Tests of `edadm.deploy`."""
