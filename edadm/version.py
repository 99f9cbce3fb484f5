"""The version of edadm, where modules of any layer may read it."""

__version__ = "0.2.0"
