"""Tests of `edadm.deploy.fuse`."""
