"""Tests of `edadm.deploy.backends`."""
