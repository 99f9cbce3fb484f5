"""Training of latent models."""
