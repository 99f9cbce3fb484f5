"""Tests of `edadm.learning.capture`."""
