"""Tests of `edadm.deploy.export`."""
