"""A checkpoint quantized by one command: described, configured, planned, run by the workflow, told about."""
