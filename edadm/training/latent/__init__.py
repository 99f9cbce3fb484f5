"""Training of latent models: a first stage, then a U-Net that is told classes or prompts."""
