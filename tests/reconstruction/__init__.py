"""Tests of `edadm.reconstruction`."""
