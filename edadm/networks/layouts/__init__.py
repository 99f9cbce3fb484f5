"""Key layouts of original checkpoints, translated to and from diffusers, one module per layout."""
