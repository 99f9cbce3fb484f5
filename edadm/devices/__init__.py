"""Devices: the GPUs that a process may use, the lease of one of them, and where tensors can be."""
