"""How files of weights are packed, and what is in them, without an unpickler and before a tensor is read."""
