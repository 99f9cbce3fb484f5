"""Tests of `edadm.config`."""
