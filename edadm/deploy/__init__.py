"""From simulated to integer: the checkpoint format and who reads it."""
