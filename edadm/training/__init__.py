"""How the bundled weights were made: a small DDPM and the classifier whose features score it."""
