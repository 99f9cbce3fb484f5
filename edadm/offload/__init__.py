"""Memory of what waits between computations: on the device, in host memory, in files."""
