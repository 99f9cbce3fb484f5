"""What `config.json` files of diffusers and transformers say, as settings."""
